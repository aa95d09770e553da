"""Renders a job for `downpour top`: workers, staleness, throughput and events, for any width of the terminal.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from downpour.deploy.view.rendering import UNKNOWN, duration, eta, number, share, where
from downpour.protos import parameter_server_pb2 as pb

BARS = "▁▂▃▄▅▆▇█"
KEPT = 120  # values of a sparkline
MOST_NOTES = 200
LIVE_KEYS = (
    ("p", "pause"), ("k", "kill"), ("s", "stop 3 s"), ("l", "slow"), ("d", "drain"), ("c", "checkpoint"),
    ("a", "add worker"), ("↑↓", "choose"), ("q", "quit"),
)  # fmt: skip
RECORDED_KEYS = (("↑↓", "choose"), ("q", "quit"))
# Columns of the table, each with the width of the terminal from which it is shown.
COLUMNS = (
    ("worker", 0), ("state", 0), ("updates", 0), ("samples/s", 56), ("loss", 90), ("τ", 0), ("staleness", 0),
    ("dropped", 72), ("pid", 100),
)  # fmt: skip
OTHER_COLUMNS_WIDTH = 34  # at most, of those that are shown at 60 columns, with their gaps
SAMPLED = ("samples/s", "loss", "dropped", "pid")
COLUMN_WIDTH = 10
WIDE = 72  # columns of a terminal on which throughput and loss have sparklines
NARROW = 60  # columns below which the accuracy is left out
COMPUTING = ("busy", "training")  # states of a worker
SLOW_FACTOR = 2.0  # a worker is slow if its samples per second are this much fewer than the median


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the newest values as bars from 0 to the largest, one character each; spaces where there is no value."""
    shown = [float(value) for value in values][-width:] if width > 0 else []
    top = max((value for value in shown if value == value), default=0.0)
    marks = (
        " " if value != value else BARS[min(len(BARS) - 1, int(value / top * len(BARS)))] if top > 0 else BARS[0]
        for value in shown
    )
    return "".join(marks).rjust(max(0, width))


def whole(values: Sequence[float], width: int) -> list[float]:
    """Return the means of equal parts of a series, at most `width` of them; NaN where a part has no value."""
    count = max(1, min(width, len(values)))
    parts = ([value for value in part if value == value] for part in np.array_split(np.array(values, float), count))
    return [sum(part) / len(part) if part else float("nan") for part in parts]


def new_values() -> deque[float]:
    """Return an empty history of a measurement."""
    return deque(maxlen=KEPT)


@dataclass
class TopState:
    """What is known of a job.

    Attributes:
        progress: The newest message about the job; None before the first.
        throughput: The samples per second of the last intervals.
        loss: The loss of the last intervals.
        staleness: The mean staleness of each worker's pushes in the last intervals; NaN if it has pushed nothing.
        notes: The events, oldest first.
        chosen: The number of the worker to which the keys apply.
        message: The answer to the last key.
        live: Whether the job runs, so that keys operate it.
    """

    progress: pb.Progress | None = None
    throughput: deque[float] = field(default_factory=new_values)
    loss: deque[float] = field(default_factory=new_values)
    staleness: dict[int, deque[float]] = field(default_factory=dict)
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_NOTES))
    chosen: int | None = None
    message: str = ""
    live: bool = True

    def take(self, progress: pb.Progress, records: NDArray[np.void]) -> None:
        """Add a message about the job and the records of shard 0 since the one before it."""
        before = set(worker.worker for worker in self.progress.workers) if self.progress is not None else set()
        self.progress = progress
        now = {worker.worker for worker in progress.workers}
        self.notes.extend(f"worker {each} has left" for each in sorted(before - now))
        self.notes.extend(f"worker {each} has joined" for each in sorted(now - before))
        self.notes.extend(progress.notes)
        self.throughput.append(progress.samples_per_s)
        self.loss.append(progress.loss)
        applied = records[records["outcome"] == 0]
        for worker in now | set(self.staleness):
            mine = applied["staleness"][applied["worker"] == worker]
            mean = float(mine.mean()) if len(mine) else float("nan")
            self.staleness.setdefault(worker, new_values()).append(mean)
        if self.chosen not in now:
            self.chosen = min(now, default=None)

    def shown(self, values: Collection[float], width: int) -> list[float]:
        """Return what a sparkline of a series shows: the newest values of a running job, else all of them."""
        return list(values)[-width:] if self.live else whole(list(values), width)

    def answer(self, message: str) -> None:
        """Show the answer to a key."""
        self.message = message

    def choose(self, by: int) -> None:
        """Choose another worker, `by` rows below the present one."""
        numbers = sorted(worker.worker for worker in self.progress.workers) if self.progress is not None else []
        if numbers:
            at = numbers.index(self.chosen) if self.chosen in numbers else 0
            self.chosen = numbers[(at + by) % len(numbers)]


def frame(state: TopState, width: int, height: int) -> RenderableType:
    """Return the whole screen."""
    if state.progress is None:
        return Text(state.message or "waiting for the coordinator …")
    head: list[RenderableType] = [
        _title(state.progress, width),
        *([_bar(state.progress)] if state.live else []),
        _figures(state, width),
    ]
    keys = _keys(LIVE_KEYS if state.live else RECORDED_KEYS, width)
    key_lines = len(keys.plain.splitlines())
    left = height - len(head) - (2 if width >= WIDE else 1) - key_lines - 4  # header, message and blank lines
    count = len(state.progress.workers)
    rows = max(1, count if count <= left else left - 1)
    parts: list[RenderableType] = [*head, Text(""), _workers(state, width, rows)]
    if count > rows:
        parts.append(Text(f"and {count - rows} more workers", style="dim"))
    if (lines := left - rows - (count > rows) - 1) > 0 and state.notes:
        parts.append(Text(""))
        parts += [Text(note, overflow="ellipsis", no_wrap=True, style="dim") for note in list(state.notes)[-lines:]]
    parts.append(Text(state.message, overflow="ellipsis", no_wrap=True, style="bold"))
    return Group(*parts, keys)


def _title(progress: pb.Progress, width: int) -> Text:
    rate = f", η {progress.learning_rate:g}" if progress.learning_rate else ""
    compensation = f", {progress.staleness_policy}" if progress.staleness_policy not in ("", "none") else ""
    status = "paused" if progress.paused else progress.phase
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(progress.run or progress.job, style="bold").append(f"  {status}  ", style="bold cyan")
    return text.append(
        f"{progress.model} on {progress.dataset} · {progress.mode}{compensation} · {progress.optimizer}{rate}"
    )


def _bar(progress: pb.Progress) -> Table:
    bar = Table.grid(expand=True, padding=(0, 1))
    for ratio in (None, 1, None, None):
        bar.add_column(ratio=ratio, no_wrap=True)
    bar.add_row(
        where(progress), ProgressBar(total=1.0, completed=share(progress)), f"{share(progress):.0%}",
        f"{duration(progress.elapsed_s)}, ETA {eta(progress)}",
    )  # fmt: skip
    return bar


def _figures(state: TopState, width: int) -> Table:
    assert state.progress is not None
    progress, spark = state.progress, max(8, min(40, (width - 46) // 2))
    loss = progress.loss if progress.version else None
    table = Table.grid(padding=(0, 1))
    for _ in range(5 if width >= NARROW else 4):
        table.add_column(no_wrap=True)
    accuracy = number(progress.val_accuracy if progress.HasField("val_accuracy") else None)
    rows = [
        ["version", f"{progress.version:,}", "dropped", f"{progress.dropped:,}", f"val accuracy {accuracy}"],
        ["samples/s", f"{progress.samples_per_s:,.0f}", "loss", number(loss), ""],
    ]
    for row in rows:
        table.add_row(*row[: len(table.columns)])
    if width >= WIDE:
        rates, losses = state.shown(state.throughput, spark), state.shown(state.loss, spark)
        line = Text(sparkline(rates, spark), style="green")
        table.add_row("", line, "", Text(sparkline(losses, spark), style="magenta"), "")
    return table


def _workers(state: TopState, width: int, rows: int) -> Table:
    assert state.progress is not None
    workers = sorted(state.progress.workers, key=lambda worker: worker.worker)
    at = next((index for index, worker in enumerate(workers) if worker.worker == state.chosen), 0)
    first = max(0, min(at - rows // 2, len(workers) - rows))
    names = [name for name, least in COLUMNS if width >= least]
    optional = sum(name in SAMPLED for name in names)
    spark = max(6, min(KEPT, width - OTHER_COLUMNS_WIDTH - COLUMN_WIDTH * optional))
    rates = [worker.samples_per_s for worker in workers if worker.samples_per_s > 0]
    median = sorted(rates)[len(rates) // 2] if rates else 0.0
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name, no_wrap=True, justify="left" if name in ("worker", "state", "staleness") else "right")
    for worker in workers[first : first + rows]:
        cells = _cells(worker, state.shown(state.staleness.get(worker.worker, ()), spark), spark, median)
        style = "reverse" if worker.worker == state.chosen and state.live else ""
        table.add_row(*(cells[name] for name in names), style=style)
    return table


def _cells(worker: pb.WorkerProgress, staleness: Sequence[float], spark: int, median: float) -> Mapping[str, Text]:
    slow = 0 < worker.samples_per_s * SLOW_FACTOR < median
    values = {
        "worker": str(worker.worker),
        "state": "slow" if slow and worker.state in COMPUTING else worker.state,
        "updates": f"{worker.updates:,}",
        "samples/s": f"{worker.samples_per_s:,.0f}" if worker.samples_per_s else UNKNOWN,
        "loss": number(worker.loss if worker.updates else None),
        "τ": number(worker.staleness_mean if worker.updates else None, ".2f"),
        "staleness": sparkline(staleness, spark),
        "dropped": f"{worker.dropped:,}",
        "pid": str(worker.pid),
    }
    return {name: Text(value, style="yellow" if name == "state" and slow else "") for name, value in values.items()}


def _keys(keys: Sequence[tuple[str, str]], width: int) -> Text:
    """Return the keys with what they do, in as many lines as they need."""
    text, used = Text(), 0
    for key, action in keys:
        size = len(key) + len(action) + 3
        if used and used + size > width:
            text.append("\n")
            used = 0
        text.append(key, style="bold reverse").append(f" {action}  ")
        used += size
    return text
