"""Creates the run directory of a job, and reads the summary that the coordinator writes there."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

SUCCESSFUL = ("ended", "interrupted")  # the statuses of a summary whose job has saved its model


def make_run_dir(runs: Path, model: str, now: datetime) -> Path:
    """Create `runs/<UTC time>-<model>/` with `logs/` and return it; a number is appended if the name exists.

    Raises:
        OSError: The directory cannot be created.
    """
    label = re.sub(r"[^A-Za-z0-9_.-]+", "-", model).strip("-.") or "model"
    stem = f"{now:%Y%m%dT%H%M%SZ}-{label}"
    runs.mkdir(parents=True, exist_ok=True)
    count = 1
    while True:
        run_dir = runs / (stem if count == 1 else f"{stem}-{count}")
        try:
            run_dir.mkdir()
        except FileExistsError:
            count += 1
            continue
        (run_dir / "logs").mkdir()
        return run_dir


def read_summary(run_dir: Path) -> dict[str, Any] | None:
    """Return the content of `summary.json`, or None if the coordinator has not written it."""
    try:
        summary = json.loads((run_dir / "summary.json").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) else None


def summary_stamp(run_dir: Path) -> tuple[int, int] | None:
    """Return the inode and the modification time of `summary.json`, which change when it is written again.

    Returns:
        None if there is no such file.
    """
    try:
        found = (run_dir / "summary.json").stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def has_ended(run_dir: Path, epochs: int) -> bool:
    """Return whether a run has ended with at least `epochs` epochs, or early because it had stopped improving."""
    found = read_summary(run_dir) or {}
    planned = found.get("epochs")
    return found.get("status") == "ended" and not (isinstance(planned, int) and planned < epochs)
