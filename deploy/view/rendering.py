"""Renders a `Progress` message or a summary as text lines, a rich renderable or a dict.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from rich.box import ROUNDED
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import from_proto
from downpour.protos.sentences.sentence import counted, to_json

UNKNOWN = "–"
WAITING = ("waiting", "initialising", "warming")  # the phases before training
SCRIPT = "script"  # the dataset of a job whose data a script has
WORKER_COLUMNS = ("updates", "samples/s", "loss", "staleness", "dropped")
DISPENSABLE = ("pid", "dropped", "loss", "staleness", "samples/s")  # columns that a narrow terminal omits, in order
LESS_IMPORTANT = ("samples/s", "dropped", "staleness")  # measurements that the line of an epoch omits first
RESULTS = ("val_loss", "val_accuracy")
SPACE = 3  # columns between two measurements
GAP = 2  # columns between those of a table
LONGEST_S = 1000 * 3600.0
LOSS, LARGE = ".4f", 1e6  # the form of a loss, and from where it has an exponent


def duration(seconds: float) -> str:
    """Format a time as `0:07`, `12:34` or `1:02:03`, or as a dash if it is unknown."""
    if not 0 <= seconds < LONGEST_S:
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value: float | None, form: str = LOSS) -> str:
    """Format a number, or return a dash for None; a loss with more digits than can be read has an exponent."""
    if value is None:
        return UNKNOWN
    return format(value, ".4g" if form == LOSS and abs(value) >= LARGE else form)


def where(progress: pb.Progress) -> str:
    """Return the epoch, such as `epoch 3/10`, or the phase of a job that is not training."""
    if progress.phase == "training":
        return f"epoch {min(progress.epoch + 1, progress.epochs)}/{progress.epochs}"
    if progress.phase in WAITING:
        if progress.shards_joined < progress.shards:
            return f"waiting for shards: {progress.shards_joined} of {progress.shards} joined"
        if len(progress.workers) < progress.workers_wanted:
            return f"waiting for workers: {len(progress.workers)} of {progress.workers_wanted} joined"
        return f"{progress.phase}, {counted(len(progress.workers), 'worker')} joined"
    return progress.phase


def share(progress: pb.Progress) -> float:
    """Return the fraction of all samples that has been used."""
    return min(1.0, progress.samples / progress.total_samples) if progress.total_samples else 0.0


def figures(progress: pb.Progress) -> list[tuple[str, str]]:
    """Return the names and formatted values of the measurements, in the order in which they are shown."""
    started = progress.samples > 0
    rows = [
        ("samples/s", f"{progress.samples_per_s:,.0f}" if progress.samples_per_s else UNKNOWN),
        ("loss", number(progress.loss if started else None)),
        *_of_metrics(progress),
        ("staleness", number(progress.staleness_mean if started else None, ".2f")),
    ]
    if progress.HasField("test_accuracy"):
        rows.append(("test accuracy", number(progress.test_accuracy)))
    if progress.dropped:
        rows.append(("dropped", f"{progress.dropped:,}"))
    return rows


def _of_metrics(progress: pb.Progress) -> list[tuple[str, str]]:
    """Return the newest results of the model on the validation split, or the logs of a script's epochs."""
    if progress.metrics:
        names = sorted(progress.metrics, key=lambda name: (name.startswith("val_"), name))
        return [(name.replace("_", " "), number(progress.metrics[name])) for name in names if name != "loss"]
    if progress.HasField("val_loss") and not progress.HasField("val_accuracy"):
        return [("val loss", number(progress.val_loss))]
    if progress.dataset == SCRIPT:
        return []
    return [("val accuracy", number(progress.val_accuracy if progress.HasField("val_accuracy") else None))]


def eta(progress: pb.Progress) -> str:
    """Format the remaining time of a job that is training."""
    known = progress.phase == "training" and progress.eta_s > 0
    return duration(progress.eta_s) if known else UNKNOWN


def plain(progress: pb.Progress) -> str:
    """Render the job as one line of a log: what it waits for and since when, or its measurements."""
    if progress.phase in WAITING:
        return f"{where(progress)}  {duration(progress.elapsed_s)}"
    values = [f"{name} {value}" for name, value in figures(progress)]
    return "  ".join([f"{where(progress)}  {share(progress):4.0%}", *values, f"ETA {eta(progress)}"])


def epoch_line(progress: pb.Progress, width: int | None = None) -> str:
    """Render an epoch that has ended as one line, such as `epoch 3/10  0:07  loss 0.3`.

    Args:
        progress: The last progress within the epoch, with the results of its validation.
        width: The columns of the terminal, for which measurements are left out; None if there is no limit.
    """
    values = dict(figures(progress))
    for name in (None, *LESS_IMPORTANT):
        values.pop(name or "", None)
        parts = [where(progress), duration(progress.elapsed_s), *(f"{each} {value}" for each, value in values.items())]
        line = "  ".join(parts)
        if width is None or len(line) <= width:
            break
    return line


def with_results(ended: pb.Progress, now: pb.Progress) -> pb.Progress | None:
    """Return the last progress of an epoch with its own results, which come later; None if they are not there yet."""
    if now.dataset == SCRIPT:
        new = dict(now.metrics) != dict(ended.metrics)
    else:
        new = now.HasField("val_loss") and (not ended.HasField("val_loss") or now.val_loss != ended.val_loss)
    if not new:
        return None
    own = without_results(ended)
    own.metrics.update(now.metrics)
    for name in RESULTS:
        if now.HasField(name):
            setattr(own, name, getattr(now, name))
    return own


def without_results(ended: pb.Progress) -> pb.Progress:
    """Return the last progress of an epoch without results, which are those of the epoch before it."""
    own = pb.Progress()
    own.CopyFrom(ended)
    for name in ("metrics", *RESULTS):
        own.ClearField(name)
    return own


def render(progress: pb.Progress, verbose: bool = False) -> RenderableType:
    """Render the job as a progress bar with its measurements, and with `verbose` one line per worker."""
    waits = progress.phase in WAITING  # nothing is known yet of the end, and the reason needs the space
    ends = [Text(duration(progress.elapsed_s), style="dim")]
    ends = ends if waits else [Text(f"{share(progress):.0%}"), *ends, Text(f"ETA {eta(progress)}")]
    bar = Table.grid(expand=True, padding=(0, 1))
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    for _ in ends:
        bar.add_column(no_wrap=True, justify="right")
    done = ProgressBar(total=1.0, completed=share(progress))
    bar.add_row(Text(where(progress), style="bold"), done, *ends)
    parts: list[RenderableType] = [bar, Figures(progress)]
    if verbose and progress.workers:
        parts.append(WorkersTable(progress))
    return Group(*parts)


class Figures:
    """The measurements in as few lines as they fit into, so that no name is parted from its value."""

    def __init__(self, progress: pb.Progress) -> None:
        """Build the lines of the measurements of a job."""
        self._progress = progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the measurements, as many in each line as its width allows."""
        line = Text()
        for name, value in figures(self._progress):
            part = Text().append(f"{name} ", style="dim").append(value)
            if line and line.cell_len + SPACE + part.cell_len > options.max_width:
                yield line
                line = Text()
            line.append(" " * SPACE if line else "").append_text(part)
        yield line


class WorkersTable:
    """The workers as a table, which on a narrow terminal has fewer columns rather than cut numbers."""

    def __init__(self, progress: pb.Progress) -> None:
        """Build the table of the workers of a job."""
        self._progress = progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the widest table that fits."""
        names = ["worker", "state", *WORKER_COLUMNS, "pid"]
        rows = [dict(zip(names, cells(worker), strict=True)) for worker in self._progress.workers]
        width = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
        for name in DISPENSABLE:
            if sum(width[each] + GAP for each in names) - GAP > options.max_width:
                names.remove(name)
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
        for name in names:
            table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(row[name] for name in names))
        yield table


def cells(worker: pb.WorkerProgress) -> list[str]:
    """Return the number (and incarnation), state, values of `WORKER_COLUMNS` and process id of one worker."""
    started = worker.updates > 0
    return [
        f"{worker.worker}" if worker.incarnation <= 1 else f"{worker.worker}.{worker.incarnation}",
        worker.state,
        f"{worker.updates:,}",
        f"{worker.samples_per_s:,.0f}",
        number(worker.loss if started else None),
        number(worker.staleness_mean if started else None, ".2f"),
        f"{worker.dropped:,}",
        str(worker.pid),
    ]


def worker_lines(progress: pb.Progress) -> list[str]:
    """Render the workers as lines of a log."""
    lines = []
    for worker in progress.workers:
        name, state, *values, pid = cells(worker)
        shown = [f"{column} {value}" for column, value in zip(WORKER_COLUMNS, values, strict=True)]
        lines.append("  ".join([f"  worker {name}", state, *shown, f"pid {pid}"]))
    return lines


def summary_rows(summary: Mapping[str, Any], run: str) -> list[tuple[str, str]]:
    """Return the rows of the table at the end of a job, from the content of `summary.json`."""
    staleness = summary.get("staleness") or {}
    lost = ", ".join(f"{summary[name]:,} {name}" for name in ("dropped", "duplicates") if summary.get(name))
    forms = (("mean", ".2f"), ("p99", "g"), ("max", "g"))
    spread = ", ".join(f"{name} {number(staleness.get(name), form)}" for name, form in forms)
    share = summary.get("communication_share")  # not known of clients that report no times
    status = summary.get("status", "ended")
    return [
        *([] if status == "ended" else [("status", str(status))]),
        *_results(summary),
        ("training loss", number(summary.get("train_loss"))),
        ("updates", number(summary.get("updates"), ",") + (f" ({lost})" if lost else "")),
        ("samples/s", number(summary.get("samples_per_s"), ",.0f")),
        ("staleness", spread),
        *([] if share is None else [("communication", f"{share:.0%} of a step")]),
        ("time", duration(summary.get("wall_s", math.nan))),
        ("run", run),
    ]


def _results(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the results on the test and the validation data: the accuracy of a classifier, the loss of others."""
    if metrics := summary.get("metrics"):
        return [(name.replace("_", " "), number(value)) for name, value in metrics.items() if name != "loss"]
    measure = "loss" if summary.get("test_accuracy") is None and summary.get("test_loss") is not None else "accuracy"
    return [
        (f"test {measure}", number(summary.get(f"test_{measure}"))),
        (f"validation {measure}", number(summary.get(f"val_{measure}"))),
    ]


def summary_table(summary: Mapping[str, Any], run: str) -> Table:
    """Render the table at the end of a job."""
    names = [str(summary[key]) for key in ("model", "dataset", "optimizer", "mode") if key in summary]
    table = Table(box=ROUNDED, show_header=False, title=" · ".join(names) or None, title_justify="left")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in summary_rows(summary, run):
        table.add_row(name, value)
    return table


def as_dict(message: Message) -> dict[str, Any]:
    """Convert a message to a dict for JSON, in which fields that are not set or not finite are None."""

    def plain(value: Any) -> Any:
        if isinstance(value, Message):
            return to_json(from_proto(value)) if isinstance(value, pb.Sentence) else as_dict(value)
        return None if isinstance(value, float) and not math.isfinite(value) else value

    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            fields[field.name] = [plain(item) for item in value]
        else:
            absent = field.has_presence and not message.HasField(field.name)
            fields[field.name] = None if absent else plain(value)
    return fields
