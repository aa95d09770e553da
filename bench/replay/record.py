"""A recorded run, read from its directory; what cannot be replayed is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from downpour.protos.errors import InvalidRequest
from downpour.protos.layout import Layout
from downpour.ps.config import ServerSettings
from downpour.ps.control_plane.replay_recorder import FORMAT
from downpour.ps.core.consistency import consistency_of
from downpour.ps.storage.checkpoint_file import STATE, TRAINED
from downpour.ps.trace import call_log as calls
from downpour.ps.trace import format as trace
from downpour.ps.trace.files import per_shard

Life = tuple[int, int]  # worker, incarnation


class CannotReplay(Exception):
    """The run cannot be replayed; the message says why, and what to do."""


@dataclass(frozen=True)
class Recorded:
    """What a run left behind.

    Attributes:
        path: Its directory.
        settings: Of the job.
        layout: Of the flat vector.
        initial: `float32[n + m]`, version 0.
        traces: Of each shard.
        calls: On each shard.
        facts: Of every worker's incarnation.
        checksum: Of the data.
    """

    path: Path
    settings: ServerSettings
    layout: Layout
    initial: np.ndarray
    traces: list[np.ndarray]
    calls: list[np.ndarray]
    facts: dict[Life, dict[str, str]]
    checksum: str

    @property
    def model_path(self) -> Path:
        """The trained model, which holds the final weights."""
        return self.path / "model.keras"


def read_run(path: Path) -> Recorded:
    """Reads what a run left behind.

    Raises:
        CannotReplay: It is no run, it is of a kind that cannot be replayed, or something is missing or damaged.
    """
    config = _json(path / "config.json")
    try:
        settings = ServerSettings.model_validate(config["settings"])
        facts = {tuple(life): group["facts"] for group in config["workers"] for life in group["lives"]}
        checksum = str(config["data"]["checksum"])
    except (KeyError, TypeError, ValidationError) as error:
        raise CannotReplay(f"{path / 'config.json'} must hold the settings of a recorded run: {error}") from error
    refuse(settings, _json(path / "summary.json"))
    layout, initial = _initial(path, settings)
    shards = range(settings.shards)
    return Recorded(
        path, settings, layout, initial,
        [_records(path / per_shard("trace", shard), trace.DTYPE) for shard in shards],
        [_records(path / per_shard("calls", shard), calls.DTYPE) for shard in shards],
        facts, checksum,
    )  # fmt: skip


def refuse(settings: ServerSettings, summary: dict[str, Any]) -> None:
    """Raises CannotReplay if a job of that kind cannot be replayed."""
    reason = next(_reasons(settings, summary), None)
    if reason:
        raise CannotReplay(f"a run to be replayed {reason}")


def _reasons(settings: ServerSettings, summary: dict[str, Any]) -> Iterator[str]:
    """Why not, each as what must hold and what was received."""
    if settings.script:
        yield "must be one of `downpour train`; this is a script's, whose model and data are not recorded."
    if settings.codec != "float32":
        yield (
            f"must have pushed with --codec float32; this one has {settings.codec}, whose rounding and left-over "
            "stay in the worker and are not recorded."
        )
    if consistency_of(settings.mode).payload == "replica":
        yield f"must leave no weights to the workers, which are not recorded; this one ran in --mode {settings.mode}."
    if (settings.fetch_every or settings.push_every) != settings.push_every:
        yield (
            f"must have pulled with every push; this one has --push-every {settings.push_every} and --fetch-every "
            f"{settings.fetch_every}: weights that workers step to by themselves between two pushes are not recorded."
        )
    if settings.record == "off":
        yield "must have been recorded; this one ran with --record off."
    if summary.get("generation", 1) > 1:
        yield (
            f"must be one life of its servers; this one was resumed, or a server of it died, "
            f"{summary['generation'] - 1} times: what happened after its last cut is not in the record."
        )
    if summary.get("partial_pushes"):
        yield (
            f"must have every push on all shards; in this one a worker died between them, {summary['partial_pushes']} "
            "times, and what it had pulled from the others is not recorded."
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CannotReplay(
            f"RUN_DIR must be the directory of a run that has ended, with its config.json and summary.json: {error}"
        ) from error
    if not isinstance(content, dict):
        raise CannotReplay(f"{path} must be a JSON object; it is not.")
    return content


def _initial(path: Path, settings: ServerSettings) -> tuple[Layout, np.ndarray]:
    file = path / "initial.safetensors"
    if not file.exists():
        raise CannotReplay(
            f"a run to be replayed must have been recorded; in {path} there is no initial.safetensors. With --record "
            f"auto, models of more than {calls.LARGEST_RECORDED:,} weights are not: say --record on."
        )
    try:
        with safe_open(file, framework="numpy") as content:
            metadata = content.metadata() or {}
            vectors = {name: content.get_tensor(name) for name in content.keys()}
        layout = Layout.of((name, tuple(shape), section) for name, shape, section in json.loads(metadata["layout"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, InvalidRequest) as error:
        raise CannotReplay(f"{file} must hold the initial weights of a run; it does not: {error}") from error
    initial = np.concatenate([vectors.get(name, np.empty(0, np.float32)) for name in (TRAINED, STATE)])
    if metadata.get("format") != FORMAT or initial.dtype != np.float32 or initial.shape != (layout.size,):
        raise CannotReplay(f"{file} must hold {layout.size:,} float32 as {FORMAT!r}; it holds {initial.shape}.")
    return layout, initial


def _records(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    try:
        records: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CannotReplay(f"{path} must be there and whole: {error}") from error
    if records.dtype != dtype or records.ndim != 1:
        raise CannotReplay(f"{path} must hold records of {dtype.names}; it holds {records.dtype.names}.")
    return records
