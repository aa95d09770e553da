"""Settings of `downpour playground`, and the presets that its page offers."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from downpour.deploy.playground.engine import Setup
from downpour.protos.sentences.sentence import sentence
from downpour.protos.settings import Settings

TOO_HIGH = 4.0  # η at which eight asynchronous workers do not learn the circle


class PlaygroundSettings(Settings):
    """Serve a page on which a small network is trained by NumPy workers on the project's own shard."""

    port: int = Field(0, ge=0, lt=65536, description="Port of the page on 127.0.0.1; with 0 the system chooses it.")


# `page/texts` describes each in two sentences, and a test checks that these are true.
PRESETS: dict[str, Setup] = {
    "too_high": Setup(hidden=(4,), workers=8, learning_rate=TOO_HIGH),
    "compensated": Setup(hidden=(4,), workers=8, learning_rate=TOO_HIGH, compensation="inverse"),
    "bsp_straggler": Setup(workers=4, mode="bsp", straggler=8.0),
    "async_straggler": Setup(workers=4, mode="async", straggler=8.0),
    "xor_neuron": Setup(data="xor", hidden=()),
    "xor_hidden": Setup(data="xor", hidden=(4,)),
    "momentum": Setup(hidden=(4,), workers=8, learning_rate=1.0, batch=50),
    "ssp": Setup(workers=4, mode="ssp:2", straggler=5.0),
}


FIELDS = {
    "data": str, "noise": float, "workers": int, "mode": str, "compensation": str, "learning_rate": float,
    "momentum": float, "batch": int, "straggler": float, "seed": int,
}  # fmt: skip


def setup_of(query: Mapping[str, str]) -> Setup:
    """Return what the query of an address describes; what it lacks has its default.

    Raises:
        ValueError: A value is not possible; the message says what must hold.
    """
    given: dict[str, object] = {}
    for name, kind in FIELDS.items():
        if name in query:
            try:
                given[name] = kind(query[name])
            except ValueError:
                raise ValueError(sentence("field_number", name=name, received=query[name][:40])) from None
    if "hidden" in query:
        parts = [part for part in query["hidden"].split(",") if part]
        if not all(part.isdecimal() and len(part) < 4 for part in parts):
            raise ValueError(sentence("hidden_numbers", received=query["hidden"][:40]))
        given["hidden"] = tuple(map(int, parts))
    return Setup(**given)  # type: ignore[arg-type]
