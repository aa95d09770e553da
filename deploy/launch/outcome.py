"""The messages at the end of a job: its results, or the reason why it failed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from downpour.deploy.launch.processes import ON_PURPOSE, Process
from downpour.deploy.launch.run_dir import read_summary
from downpour.deploy.view.terminal import Screen

TOO_LARGE = "the learning rate is too large"  # in the warning of the server
SCRIPT_DATA = "script"  # the dataset of a job that trains a script


def is_untrained(run_dir: Path) -> bool:
    """Return whether a job has ended before its first update."""
    summary = read_summary(run_dir)
    return summary is not None and not summary.get("updates")


def conclude(screen: Screen, run_dir: Path, drained: bool) -> None:
    """Show the results of a job that ended successfully."""
    summary = read_summary(run_dir)
    if drained and is_untrained(run_dir):
        screen.note(f"the job ended before its first update; logs are in {run_dir / 'logs'}")
        return
    if summary is not None:
        screen.table(summary, str(run_dir))
        if summary.get("diverged"):
            noted = any(TOO_LARGE in note for note in summary.get("notes", ()))  # while it happened
            screen.note(f"training diverged: {summary['diverged']}" + ("" if noted else f". {advice(summary)}"))
    if drained:
        screen.note(f"drained: the trained model is in {run_dir}")


def explain(
    screen: Screen, run_dir: Path, failure: str, processes: Iterable[Process], is_shown: Callable[[str], bool]
) -> None:
    """Show why the job failed, with the end of the most relevant log unless it has been shown.

    Args:
        screen: The screen of the job.
        run_dir: The run directory.
        failure: The reason.
        processes: The processes of the job.
        is_shown: A function that returns whether the screen shows a reason already.
    """
    dead = [process for process in processes if process.code and process.spec.role != "dashboard"]
    dead.sort(key=lambda process: (process.code not in ON_PURPOSE, process.spec.role == "worker"))
    screen.note(f"the job failed: {failure}")
    # The user has already seen the error of a process that shares the terminal, or whose log is shown.
    visible = (process for process in dead if process.spec.shown or screen.has_shown(process.log))
    seen = any(process.code and process.code > 0 for process in visible)
    lines = [] if not dead or (seen and dead[0].spec.role == "worker") else dead[0].tail()
    if lines and not _repeats(dead[0], lines, is_shown):
        screen.note(f"the last lines of {dead[0].log}:")
        for line in lines:
            screen.note(f"  {line}")
    screen.note(f"all logs are in {run_dir / 'logs'}")


def _repeats(process: Process, lines: Sequence[str], is_shown: Callable[[str], bool]) -> bool:
    """Return whether the end of a log only repeats a reason that has been shown, and has no traceback.

    The last line of a server is about its run; the reason precedes it.
    """
    if any(line.lstrip().startswith("Traceback (most recent") for line in lines):
        return False
    if process.spec.role == "ps":
        return process.code in ON_PURPOSE and any(is_shown(_message(line)) for line in lines)
    return is_shown(lines[-1])


def _message(line: str) -> str:
    """Return the message of a line of a log, which is text with the time or a JSON object."""
    if line.startswith("{"):
        try:
            return str(json.loads(line).get("message", ""))
        except ValueError:
            return line
    return re.sub(r"^\d\d:\d\d:\d\d ", "", line)


def advice(summary: dict[str, Any]) -> str:
    """Return advice for training that diverged: flags of `downpour train`, or arguments of a script's optimizer."""
    lower = f"{summary['learning_rate'] / 10:g}" if "learning_rate" in summary else None
    if summary.get("dataset") == SCRIPT_DATA:
        rate = f"a learning rate of {lower}" if lower else "a lower rate"
        return f"Try {rate} (a tenth of the current rate) or clipnorm=1.0 in the optimizer."
    rate = f"--learning-rate {lower}" if lower else "a lower rate"
    return f"Try {rate} (a tenth of the current rate) or --clip-norm 1."
