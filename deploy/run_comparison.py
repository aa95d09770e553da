"""`downpour runs compare RUN OTHER` shows in what two runs differ; `downpour runs remove RUN …` removes runs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from downpour.deploy.run_commands import json_of, part_of, shown
from downpour.deploy.runs import ADDRESS, LATEST, RunPath, is_locked
from downpour.protos.logs import print_line, reason_of
from downpour.protos.settings import Settings, parse
from downpour.protos.system.json_text import json_text

EXIT_USAGE = 2
PLACES = ("runs_dir", "run_dir", "bind", "metrics_port", "resume")  # settings that change nothing in the result
LOSSES = ("train_loss", "val_loss", "test_loss")
RESULTS = ("status", "updates", *LOSSES, "train_accuracy", "val_accuracy", "test_accuracy")
RATES = ("samples_per_s", "wall_s", "communication_share", "dropped", "duplicates")
LABELS = {  # the names in the table at the end of a job
    "train_loss": "training loss", "val_loss": "validation loss", "train_accuracy": "training accuracy",
    "val_accuracy": "validation accuracy", "samples_per_s": "samples/s", "wall_s": "time in s",
    "communication_share": "communication",
}  # fmt: skip
FILES = ("config.json", "summary.json", "trace.npy", "logs")  # of which every run has one


class CompareSettings(Settings):
    """Show the settings in which two runs differ, and the results of both."""

    positional: ClassVar[tuple[str, ...]] = ("run", "other")

    run: RunPath = Field(description="Run directory, or its name in the folder of the runs.")
    other: RunPath = Field(description="Run directory to compare it with.")
    json_: bool = Field(False, description="Print one JSON object.")


class RemoveSettings(Settings):
    """Remove runs that have ended, with their models, traces and logs."""

    positional: ClassVar[tuple[str, ...]] = ("run",)
    follows: ClassVar[str] = "[RUN ...]"

    run: RunPath = Field(description="Run directory, or its name in the folder of the runs.")


def runs_action(argv: Sequence[str]) -> int:
    """Run `downpour runs compare` or `downpour runs remove`, and return the exit status."""
    action, *rest = argv
    if action == "compare":
        return compare(parse(CompareSettings, rest, "downpour runs compare"))
    names = [each for each in rest if not each.startswith("-")]
    flags = [each for each in rest if each.startswith("-")]
    given = [[name] for name in names] or [[]]  # without a name, the parser says that one must be given
    return remove([parse(RemoveSettings, [*flags, *name], "downpour runs remove") for name in given])


def compare(settings: CompareSettings) -> int:
    """Print in what two runs differ, and return the exit status."""
    runs = (Path(settings.run), Path(settings.other))
    for run in runs:
        if not is_run(run):
            print(f"downpour runs compare: RUN must be a run; {run.absolute()} is none", file=sys.stderr)
            return EXIT_USAGE
    rows = compared(*runs)
    if settings.json_:
        print_line(json_text({"runs": [run.resolve().name for run in runs], **rows}))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", *(run.resolve().name for run in runs)):
        table.add_column(name, justify="right" if name else "left", overflow="fold")
    for part in rows.values():
        for name, values in part.items():
            table.add_row(LABELS.get(name, name.replace("_", " ")), *map(shown, values))
        table.add_section()
    Console().print(table)
    return 0


def compared(first: Path, second: Path) -> dict[str, dict[str, list[Any]]]:
    """Return the settings in which two runs differ, and their results, by name with the values of both."""
    settings = [part_of(json_of(run / "config.json"), "settings") for run in (first, second)]
    names = [name for name in {**settings[0], **settings[1]} if name not in PLACES]
    different = {name: [each.get(name) for each in settings] for name in names}
    summaries = [json_of(run / "summary.json") for run in (first, second)]
    results = {name: [each.get(name) for each in summaries] for name in (*RESULTS, *RATES)}
    for name in ("mean", "p99", "max"):
        results[f"staleness_{name}"] = [part_of(each, "staleness").get(name) for each in summaries]
    logs: dict[str, Any] = {}
    for each in summaries:
        logs |= part_of(each, "metrics")
    results |= {name: [part_of(each, "metrics").get(name) for each in summaries] for name in logs}
    return {
        "settings": {name: values for name, values in different.items() if values[0] != values[1]},
        "results": {name: values for name, values in results.items() if any(value is not None for value in values)},
    }


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run directory: a folder of other things must never be removed."""
    return folder.is_dir() and any((folder / name).exists() for name in FILES)


def remove(settings: Sequence[RemoveSettings]) -> int:
    """Remove runs, all or none of them, and return the exit status."""
    runs = [Path(each.run).resolve() for each in settings]  # what `latest` points to
    for run in runs:
        if not is_run(run):
            print(f"downpour runs remove: RUN must be a run; {run} is none", file=sys.stderr)
            return EXIT_USAGE
        if (run / ADDRESS).exists() and is_locked(run):
            print(f"downpour runs remove: RUN must have ended; {run} still runs. End it first", file=sys.stderr)
            return EXIT_USAGE
    for run in dict.fromkeys(runs):
        try:
            shutil.rmtree(run)
        except OSError as error:
            print(f"downpour runs remove: RUN must be removable; {reason_of(error)}", file=sys.stderr)
            return 1
        print_line(f"{run} is removed")
        point_to_newest(run.parent)
    return 0


def point_to_newest(folder: Path) -> None:
    """Let `latest`, if the run that it names is gone, name the newest that trained; remove it if there is none."""
    link = folder / LATEST
    if not link.is_symlink() or link.exists():
        return
    trained = [path for path in sorted(folder.iterdir()) if json_of(path / "summary.json").get("updates")]
    link.unlink()
    if trained:
        link.symlink_to(trained[-1].name)
