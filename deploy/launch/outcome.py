"""What a person is told of a job that has ended: what it has come to, or why it failed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from downpour.deploy.launch.processes import ON_PURPOSE, Process
from downpour.deploy.launch.run_dir import read_summary
from downpour.deploy.view.terminal import Screen


def conclude(screen: Screen, run_dir: Path, drained: bool) -> None:
    """Shows what a job that ended well has come to."""
    summary = read_summary(run_dir)
    if drained and summary is not None and not summary.get("updates"):
        screen.note(f"ended before anything was trained; logs are in {run_dir / 'logs'}")
        return
    if summary is not None:
        screen.table(summary, str(run_dir))
        if summary.get("diverged"):
            screen.note(f"training diverged: {summary['diverged']}. {advice(summary)}")
    if drained:
        screen.note(f"drained: what was trained is in {run_dir}")


def explain(screen: Screen, run_dir: Path, failure: str, processes: Iterable[Process]) -> None:
    """Says why the job failed, with the end of the log that tells most."""
    dead = [process for process in processes if process.code]
    dead.sort(key=lambda process: (process.code not in ON_PURPOSE, process.spec.role == "worker"))
    screen.note(f"the job failed: {failure}")
    if dead and (said := dead[0].tail()):  # nothing of one that has the terminal
        screen.note(f"the last lines of {dead[0].log}:")
        for line in said:
            screen.note(f"  {line}")
    screen.note(f"all logs are in {run_dir / 'logs'}")


def advice(summary: dict[str, Any]) -> str:
    """What to do about training that diverged."""
    rate = f"--learning-rate {summary['learning_rate'] / 10:g}, a tenth" if "learning_rate" in summary else "a tenth"
    return f"Try {rate} of what it was, or --clip-norm 1."
