"""Reads a recorded run from its directory, and rejects runs that cannot be replayed with the reason."""

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
from downpour.protos.logs import reason_of
from downpour.ps.config import ServerSettings
from downpour.ps.config_change import Change
from downpour.ps.control_plane.replay_recorder import FORMAT
from downpour.ps.core.consistency import consistency_of
from downpour.ps.storage.checkpoint_file import STATE, TRAINED
from downpour.ps.storage.run_directory import read_changes
from downpour.ps.trace import call_log as calls
from downpour.ps.trace import format as trace
from downpour.ps.trace.files import per_shard

Life = tuple[int, int]  # worker, incarnation


class CannotReplay(Exception):
    """The run cannot be replayed; the message says why and what to do."""


@dataclass(frozen=True)
class Recorded:
    """The content of the directory of a recorded run.

    Attributes:
        path: The directory.
        settings: The settings of the job.
        layout: The layout of the flat vector.
        initial: The weights `float32[n + m]` of version 0.
        traces: The trace of each shard.
        calls: The calls on each shard.
        facts: The environment of each incarnation of a worker.
        checksum: The checksum of the data.
        changes: The changes of the settings while the job ran.
    """

    path: Path
    settings: ServerSettings
    layout: Layout
    initial: np.ndarray
    traces: list[np.ndarray]
    calls: list[np.ndarray]
    facts: dict[Life, dict[str, str]]
    checksum: str
    changes: tuple[Change, ...] = ()

    @property
    def model_path(self) -> Path:
        """The trained model, which holds the final weights."""
        return self.path / "model.keras"


def read_run(path: Path) -> Recorded:
    """Read the files of a recorded run from its directory.

    Raises:
        CannotReplay: The directory is not that of a run, the run cannot be replayed, or a file is missing or damaged.
    """
    # The libraries that read the files raise exceptions of nearly any type on damaged ones.
    try:
        return _read(path)
    except CannotReplay:
        raise
    except Exception as error:
        raise CannotReplay(
            f"RUN_DIR must hold the complete files of a run; {path}: {type(error).__name__}: {error}. Copy it again."
        ) from error


def _read(path: Path) -> Recorded:
    config = _json(path / "config.json")
    try:
        settings = ServerSettings.model_validate(config["settings"])
        facts = {tuple(life): group["facts"] for group in config["workers"] for life in group["incarnations"]}
        checksum = str(config["data"]["checksum"])
    except (KeyError, TypeError, ValidationError) as error:
        raise CannotReplay(
            f"{path / 'config.json'} must contain the settings of a recorded run: {reason_of(error)}"
        ) from error
    check_replayable(settings, _json(path / "summary.json"))
    layout, initial = _initial(path, settings)
    shards = range(settings.shards)
    return Recorded(
        path, settings, layout, initial,
        [_records(path / per_shard("trace", shard), trace.DTYPE) for shard in shards],
        [_records(path / per_shard("calls", shard), calls.DTYPE) for shard in shards],
        facts, checksum, tuple(read_changes(path)),
    )  # fmt: skip


def check_replayable(settings: ServerSettings, summary: dict[str, Any]) -> None:
    """Raise CannotReplay if a job with these settings and this summary cannot be replayed."""
    reason = next(_reasons(settings, summary), None)
    if reason:
        raise CannotReplay(f"a run to be replayed {reason}")


def _reasons(settings: ServerSettings, summary: dict[str, Any]) -> Iterator[str]:
    """Yield the reasons why a job cannot be replayed: what must hold and what was received."""
    if settings.script:
        yield "must be a run of `downpour train`; this is a run of a script, whose model and data are not recorded."
    if settings.codec != "float32":
        yield (
            f"must use --codec float32; this one uses {settings.codec}, whose rounding errors stay in the worker and "
            "are not recorded."
        )
    if consistency_of(settings.mode).payload == "replica":
        yield f"must keep all weights on the servers; in --mode {settings.mode}, the workers' weights are not recorded."
    if (settings.fetch_every or settings.push_every) != settings.push_every:
        yield (
            f"must pull with every push; this one uses --push-every {settings.push_every} and --fetch-every "
            f"{settings.fetch_every}, and the weights of local steps across pushes are not recorded."
        )
    if settings.record == "off":
        yield "must be recorded; this one ran with --record off."
    if summary.get("generation", 1) > 1:
        yield (
            f"must not be resumed; this one was resumed, or one of its servers died, {summary['generation'] - 1} "
            "times, and the pushes after the checkpoint are not in the record."
        )
    if summary.get("partial_pushes"):
        yield (
            f"must apply every push on all shards; in this one, {summary['partial_pushes']} pushes of workers that "
            "died reached only some shards."
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CannotReplay(
            f"RUN_DIR must be the directory of a run that has ended, with config.json and summary.json: "
            f"{reason_of(error)}"
        ) from error
    if not isinstance(content, dict):
        raise CannotReplay(f"{path} must be a JSON object; it is not.")
    return content


def _initial(path: Path, settings: ServerSettings) -> tuple[Layout, np.ndarray]:
    file = path / "initial.safetensors"
    if not file.exists():
        raise CannotReplay(
            f"a run to be replayed must be recorded; {path} has no initial.safetensors. With --record auto, models "
            f"with more than {calls.LARGEST_RECORDED:,} weights are not recorded; train with --record on."
        )
    try:
        with safe_open(file, framework="numpy") as content:
            metadata = content.metadata() or {}
            vectors = {name: content.get_tensor(name) for name in content.keys()}
        layout = Layout.of((name, tuple(shape), section) for name, shape, section in json.loads(metadata["layout"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, InvalidRequest) as error:
        raise CannotReplay(f"{file} must contain the initial weights of a run: {reason_of(error)}") from error
    initial = np.concatenate([vectors.get(name, np.empty(0, np.float32)) for name in (TRAINED, STATE)])
    if metadata.get("format") != FORMAT or initial.dtype != np.float32 or initial.shape != (layout.size,):
        raise CannotReplay(f"{file} must contain {layout.size:,} float32 as {FORMAT!r}; received {initial.shape}.")
    return layout, initial


def _records(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    try:
        records: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CannotReplay(f"{path} must exist and be complete: {reason_of(error)}") from error
    try:
        return trace.converted(records, dtype)
    except ValueError as error:
        raise CannotReplay(f"{path}: {error}.") from error
