"""Whether a run has ended, as its summary states: such a run is never resumed, and its summary never replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SUCCESSFUL = ("ended", "interrupted")  # the statuses of a job that has saved its model


class RunEnded(Exception):
    """The run has ended already; the message says what can be done instead."""


def read_summary(path: Path) -> dict[str, Any]:
    """Return the content of a summary; an empty dict if there is none or it cannot be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def has_ended(summary: Path, epochs: int) -> bool:
    """Return whether a run has ended with at least `epochs` epochs, or early because it had stopped improving."""
    found = read_summary(summary)
    planned = found.get("epochs")
    return found.get("status") == "ended" and not (isinstance(planned, int) and planned < epochs)
