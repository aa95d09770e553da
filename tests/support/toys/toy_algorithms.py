"""One toy row for each registry, as a contributor would add it, and servers with these rows.

python -m tests.support.toys.toy_algorithms FLAGS  starts a server that has the toy rows
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from downpour.protos.codecs.codec import CODECS, Codec, CodecFamily
from downpour.ps.core.consistency import MODES, Mode
from downpour.ps.core.consistency_base import Consistency, PendingPush
from downpour.ps.core.registry import whole_number
from downpour.ps.core.rules.rule import Hyperparameter, Rule, Scalars, Slots, Vector, float32
from downpour.ps.core.rules.update_rules import OPTIMIZERS
from downpour.ps.core.schedules import SCHEDULES, Schedule, ScheduleShape
from downpour.ps.core.staleness import POLICIES, Compensation, Policy


def _descend(w: Vector, g: Vector, out: Vector, s: Vector, slots: Slots, scalars: Scalars) -> None:
    """SGD with a gain: m' = m + g, w' = w − ηγg."""
    (m,), (η, γ) = slots, scalars
    np.add(m, g, m)
    np.multiply(g, η * γ, out)
    np.subtract(w, out, out)


class Pairs(Consistency):
    """A mode that sums every two pushes, and drops those older than a limit."""

    buffers = True

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def group(self, pending: Sequence[PendingPush], senders: Mapping[int, int]) -> list[int]:
        return [0, 1] if len(pending) > 1 else []

    def refuse(self, staleness: int) -> str:
        return "stale" if staleness > self.limit else ""


class Halves(Compensation):
    """A compensation that halves every stale gradient."""

    def scale(self, staleness: int, live: int, learning_rate: float) -> float:
        return 0.5 if staleness else 1.0


def _alternating(every: int) -> Schedule:
    return lambda version: 1.0 if version // every % 2 == 0 else 2.0


def _encode(vector: np.ndarray, rng: np.random.Generator) -> memoryview:
    return vector.astype(np.float64).data.cast("B")


def _decode(payload: Any, out: np.ndarray) -> None:
    out[:] = np.frombuffer(payload, np.float64)


def _deduct(payload: Any, vector: np.ndarray) -> None:
    vector -= np.frombuffer(payload, np.float64).astype(np.float32)


ROWS: tuple[tuple[dict[str, Any], Any], ...] = (
    (
        OPTIMIZERS,
        Rule(
            doc="gradient descent with a gain",
            block=_descend,
            scalars=lambda h, t: float32(h["learning_rate"], h["gain"]),
            slots=lambda h: {"total": 0.0},
            hyperparameters={
                "learning_rate": Hyperparameter(0.5, {"gt": 0}, "Step size η."),
                "gain": Hyperparameter(2.0, {"gt": 0}, "Gain γ."),
            },
        ),
    ),
    (MODES, Mode("sum each two pushes", Pairs, (whole_number("LIMIT", 0),), "toy:4")),
    (POLICIES, Policy("half the weight for stale gradients", Halves)),
    (SCHEDULES, ScheduleShape("alternately η and 2η", _alternating, (whole_number("EVERY", 1),))),
    (
        CODECS,
        CodecFamily("8 bytes an element", lambda parameter: Codec(False, lambda n: 8 * n, _encode, _decode, _deduct)),
    ),
)


def register(put: Callable[[dict[str, Any], str, Any], None] = dict.__setitem__) -> None:
    """Add the rows, each under the name `toy`."""
    for registry, row in ROWS:
        put(registry, "toy", row)


if __name__ == "__main__":
    register()
    import sys

    from downpour.ps.__main__ import main

    sys.exit(main(sys.argv[1:]))
