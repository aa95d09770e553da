"""`downpour runs` lists the runs of a folder; `downpour logs RUN` shows the logs of one."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from downpour.deploy.runs import LATEST, RunPath, is_locked, runs_folder
from downpour.protos.logs import print_line
from downpour.protos.settings import Settings
from downpour.protos.system.json_text import json_text

POLL_S = 0.2
EXIT_USAGE = 2
LARGE = 1000  # from here on, numbers are shown without decimals
COLUMNS = ("run", "status", "updates", "loss", "accuracy")  # of the table; JSON has more


class RunsSettings(Settings):
    """List the runs, the newest last.

    `downpour runs compare RUN OTHER` and `downpour runs remove RUN ...` have a help of their own.
    """

    follows: ClassVar[str] = "| runs compare RUN OTHER | runs remove RUN ..."

    runs_dir: str = Field(default_factory=lambda: str(runs_folder()), description="Folder of the runs (default: runs).")
    json_: bool = Field(False, description="Print one JSON object for each run.")


class LogsSettings(Settings):
    """Show the logs of a run, each line after the name of its process."""

    positional: ClassVar[tuple[str, ...]] = ("run",)

    run: RunPath = Field(LATEST, description="Run directory, such as latest (default: latest).")
    follow: bool = Field(False, description="Continue until the coordinator of the run has ended; also -f.")
    process: str = Field("", description="Name of one process, such as ps-0 or worker-1 (default: all).")


def runs(settings: RunsSettings) -> int:
    """Print a line for each run, and return the exit status."""
    folder = Path(settings.runs_dir)
    if not folder.is_dir():
        print(f"downpour runs: --runs-dir must be a folder; {folder.absolute()} is none", file=sys.stderr)
        return EXIT_USAGE
    found = [described(path) for path in sorted(folder.iterdir()) if path.is_dir() and path.name != LATEST]
    if settings.json_:
        for row in found:
            print_line(json_text(row))
        return 0
    _print_table([{name: shown(row[name]) for name in COLUMNS} for row in found])
    return 0


def _print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Print the rows, on a narrow terminal with fewer columns rather than with cut values."""
    from rich.console import Console
    from rich.table import Table

    console, names = Console(), list(COLUMNS)
    width = {name: max(map(len, [name, *(row[name] for row in rows)])) for name in names}
    while len(names) > 1 and sum(width[name] + 1 for name in names) - 1 > console.width:
        names.pop()
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for name in names:
        left = name in ("run", "status")
        table.add_column(name, no_wrap=name != "run", overflow="fold", justify="left" if left else "right")
    for row in rows:
        table.add_row(*(row[name] for name in names))
    console.print(table)


def described(run: Path) -> dict[str, Any]:
    """Return the row of a run, whose values are None where they are not known."""
    summary = json_of(run / "summary.json")
    settings = {**part_of(json_of(run / "config.json"), "settings"), **summary}
    running = (run / "address").exists() and is_locked(run)
    return {
        "run": run.name,
        "status": "running" if running else summary.get("status", "aborted"),
        **{name: settings.get(name) for name in ("model", "workers", "mode")},
        "updates": summary.get("updates"),
        "loss": summary.get("train_loss"),
        "accuracy": summary.get("val_accuracy"),
        "staleness": part_of(summary, "staleness").get("mean"),
    }


def logs(settings: LogsSettings) -> int:
    """Print the logs of a run, and return the exit status."""
    folder = Path(settings.run) / "logs"
    if settings.process and not (folder / f"{settings.process}.log").exists():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.log"))) or "none"
        print(f"downpour logs: --process must have a log in {folder}; these have one: {there}", file=sys.stderr)
        return EXIT_USAGE
    if not folder.is_dir():
        print(f"downpour logs: RUN must be a run with logs; {folder.absolute()} does not exist", file=sys.stderr)
        return EXIT_USAGE
    with suppress(KeyboardInterrupt):  # the way to leave --follow
        _print_lines(settings, folder)
    return 0


def _print_lines(settings: LogsSettings, folder: Path) -> None:
    read: dict[Path, int] = {}
    while True:
        over = not is_locked(Path(settings.run))  # before the last lines are read
        for path in sorted(folder.glob(f"{settings.process or '*'}.log")):
            with path.open("rb") as file:
                file.seek(read.get(path, 0))
                whole, end, _ = file.read().rpartition(b"\n")
            read[path] = read.get(path, 0) + len(whole + end)
            for line in whole.decode(errors="replace").splitlines():
                print_line(f"{path.stem:<10}{line}")
        if over or not settings.follow:
            return
        time.sleep(POLL_S)


def json_of(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; an empty dict if it cannot be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def part_of(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object within a JSON object; an empty dict if there is none."""
    part = content.get(name)
    return part if isinstance(part, dict) else {}


def shown(value: Any) -> str:
    """Return a value as text for a table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= LARGE else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
