"""Reads a run from its directory: settings, summary and the trace of every shard."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downpour.protos.logs import reason_of
from downpour.ps.trace import call_log, format
from downpour.ps.trace.files import per_shard


class NoRun(ValueError):
    """A folder does not contain the records of a run."""


@dataclass(frozen=True)
class RecordedRun:
    """The records of a job in a run directory.

    Attributes:
        name: The name of the directory.
        config: The content of `config.json`.
        summary: The content of `summary.json`; empty while the job has not ended.
        traces: The records of every shard, shard 0 first (see `ps/trace/format.py`).
        changes: The changes of the settings while the job ran (see `ps/config_change.py`), as in `changes.json`.
        calls: The calls on shard 0 (see `ps/trace/call_log.py`); empty if they are not recorded.
    """

    name: str
    config: dict[str, Any]
    summary: dict[str, Any]
    traces: tuple[NDArray[np.void], ...]
    calls: NDArray[np.void]
    changes: tuple[dict[str, Any], ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the job ran with, by name."""
        found = self.config.get("settings")
        return found if isinstance(found, dict) else {}


def load_run(folder: Path, argument: str = "RUN must be") -> RecordedRun:
    """Return the content of a run directory; records are read from the disk when they are used.

    Args:
        folder: The run directory.
        argument: The beginning of the message if it is none: what names it, and what else it may be.

    Raises:
        NoRun: The folder has no trace, or one of its files cannot be read.
    """
    folder = folder.resolve()
    if not (folder / per_shard("trace", 0)).exists():
        raise NoRun(
            f"{argument} the directory of a run, such as runs/latest, with a trace.npy in it; received {folder}"
        )
    config = _json(folder / "config.json")
    settings = config.get("settings")
    shards = settings.get("shards", 1) if isinstance(settings, dict) else 1
    traces = [_records(folder / per_shard("trace", shard), format.DTYPE) for shard in range(int(shards))]
    calls_file = folder / per_shard("calls", 0)
    calls = _records(calls_file, call_log.DTYPE) if calls_file.exists() else np.empty(0, call_log.DTYPE)
    changes = [each for each in _json(folder / "changes.json").get("changes", []) if isinstance(each, dict)]
    return RecordedRun(folder.name, config, _json(folder / "summary.json"), tuple(traces), calls, tuple(changes))


def _json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; an empty dict if the file does not exist, as before the end of a job."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise NoRun(f"{path} must be a JSON file that can be read: {reason_of(error)}") from error
    if not isinstance(content, dict):
        raise NoRun(f"{path} must contain a JSON object, and does not")
    return content


def _records(path: Path, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Return the records that a file contains now."""
    if not path.exists():
        return np.empty(0, dtype)
    try:
        records: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise NoRun(f"{path} must be a trace that can be read: {reason_of(error)}") from error
    except (ValueError, EOFError) as error:
        raise NoRun(f"{path} must be a trace that can be read: it is damaged, or no file of NumPy") from error
    try:
        return format.converted(records, dtype)
    except ValueError as error:
        raise NoRun(f"{path} must hold records of a trace: {error}") from error
