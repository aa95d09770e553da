"""Where a person sees a job: a live bar on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live

from downpour.deploy.view.rendering import plain, render, summary_rows, summary_table, worker_lines
from downpour.protos import parameter_server_pb2 as pb

PLAIN_EVERY_S = 5.0


class Screen(Protocol):
    """Where a launcher shows a job."""

    def show(self, progress: pb.Progress) -> None:
        """What the job is doing now."""

    def note(self, text: str) -> None:
        """Something that a person should know and that stays to be read."""

    def close(self) -> None:
        """Takes away what is live."""

    def table(self, summary: Mapping[str, Any], run: str) -> None:
        """The figures of the job at its end."""


class LiveScreen:
    """A terminal: the bar stays at the bottom, notes scroll by above it."""

    def __init__(self, console: Console, verbose: bool) -> None:
        """Draws on `console`, with a line for each worker if `verbose`."""
        self._console = console
        self._verbose = verbose
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def show(self, progress: pb.Progress) -> None:
        """Redraws the bar."""
        if not self._live.is_started:
            self._live.start()
        self._live.update(render(progress, self._verbose), refresh=True)

    def note(self, text: str) -> None:
        """Prints above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Takes the bar away."""
        self._live.stop()

    def table(self, summary: Mapping[str, Any], run: str) -> None:
        """Prints the table."""
        self._console.print(summary_table(summary, run))


class PlainScreen:
    """A pipe or a file: a line every few seconds and at the end of each epoch."""

    def __init__(self, write: Callable[[str], None], every_s: float = PLAIN_EVERY_S, verbose: bool = False) -> None:
        """Gives its lines to `write`, about one in `every_s` seconds of the job, and if `verbose` one per worker."""
        self._write, self._verbose = write, verbose
        self._every_s = every_s
        self._last: pb.Progress | None = None

    def show(self, progress: pb.Progress) -> None:
        """Writes a line when it is time for one, the epoch or phase is another, or a validation came in."""
        last = self._last
        changed = last is None or any(
            getattr(last, name) != getattr(progress, name) for name in ("phase", "epoch", "val_accuracy")
        )
        if last is None or changed or progress.elapsed_s - last.elapsed_s >= self._every_s:
            self._last = progress
            self._write(plain(progress))
            for line in worker_lines(progress) if self._verbose else ():
                self._write(line)

    def note(self, text: str) -> None:
        """Writes a line."""
        self._write(text)

    def close(self) -> None:
        """Nothing is live here."""

    def table(self, summary: Mapping[str, Any], run: str) -> None:
        """Writes the figures, one on each line."""
        for name, value in summary_rows(summary, run):
            self._write(f"{name:<20} {value}")


def open_screen(verbose: bool) -> Screen:
    """A live screen where standard output is a terminal, plain lines where it is not."""
    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveScreen(console, verbose)
    return PlainScreen(write_line, verbose=verbose)


def write_line(line: str) -> None:
    """Prints a line; where nobody reads any more, the job goes on in silence."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        silence()


def silence() -> None:
    """From now on, what this process prints is thrown away."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
