"""What a program does, for how long and how much of it, on standard error: no wait of more than a second is silent.

    with doing("measure the codecs", len(sizes)) as part_done:
        for size in sizes:
            measure(size)
            part_done()

A terminal shows a bar that is redrawn and removed at the end; a pipe or a file receives a line every few seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
REDRAWS_PER_S = 2.0  # few, as benchmarks measure while the bar is shown
FIRST_S, EVERY_S = 2.0, 10.0  # between two lines of a program without a terminal

PartDone = Callable[..., None]

_bar: list[Progress] = []  # the bar of this process, while there is one


@contextmanager
def doing(what: str, total: int | None = None) -> Iterator[PartDone]:
    """Show what is done until the block ends; blocks within it have lines of their own.

    Args:
        what: What is done, as an imperative phrase such as `measure the codecs`.
        total: The number of parts; None if it is not known.

    Yields:
        A function to call after each part, or with the number of parts that are done by then.
    """
    with _on_terminal(what, total) if sys.stderr.isatty() else _in_lines(what, total) as part_done:
        yield part_done


def waiting_for(what: str) -> AbstractContextManager[PartDone]:
    """Write `waiting for WHAT` and for how long, every few seconds, on a terminal too, until the block ends."""
    return _in_lines(f"waiting for {what}", None)


def tracked(items: Iterable[T], what: str) -> Iterator[T]:
    """Yield items, and show how many of them are done."""
    with doing(what, len(items) if isinstance(items, Sized) else None) as part_done:
        for item in items:
            yield item
            part_done()


@contextmanager
def _on_terminal(what: str, total: int | None) -> Iterator[PartDone]:
    with nullcontext(_bar[0]) if _bar else _new_bar() as bar:
        outermost = not _bar
        if outermost:
            _bar.append(bar)
        task = bar.add_task(what, total=total)

        def part_done(completed: int | None = None) -> None:
            if completed is None:
                bar.advance(task)
            else:
                bar.update(task, completed=completed)

        try:
            yield part_done
        finally:
            bar.remove_task(task)
            if outermost:
                _bar.clear()


def _new_bar() -> Progress:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=20),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )
    return progress.Progress(
        *columns, console=Console(stderr=True), transient=True, refresh_per_second=REDRAWS_PER_S,
        redirect_stdout=sys.stdout.isatty(),
    )  # fmt: skip


@contextmanager
def _in_lines(what: str, total: int | None) -> Iterator[PartDone]:
    over, done, begun_s = threading.Event(), [0], time.monotonic()

    def write() -> None:
        pause_s = FIRST_S
        while not over.wait(pause_s):
            pause_s = EVERY_S
            parts = "" if total is None else f", {done[0]} of {total}"
            print(f"{what}{parts} ({time.monotonic() - begun_s:.0f} s)", file=sys.stderr, flush=True)

    def part_done(completed: int | None = None) -> None:
        done[0] = done[0] + 1 if completed is None else completed

    thread = threading.Thread(target=write, name="progress", daemon=True)
    thread.start()
    try:
        yield part_done
    finally:
        over.set()
        thread.join()
