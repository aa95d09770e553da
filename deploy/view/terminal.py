"""Shows the progress of a job: a live bar on a terminal, plain lines elsewhere, and a table at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live

from downpour.deploy.view.rendering import (
    epoch_line,
    plain,
    render,
    summary_rows,
    summary_table,
    with_results,
    without_results,
    worker_lines,
)
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.logs import discard_output, print_line

PLAIN_EVERY_S = 5.0
COMPLETE = ("finishing", "ended")  # phases after the last epoch
RESULTS_S = 10.0  # until the line of an epoch is shown without the results of its validation


class Screen(Protocol):
    """The interface through which a launcher shows a job."""

    def show(self, progress: pb.Progress) -> None:
        """Show the current progress, which replaces the previous one."""

    def note(self, text: str) -> None:
        """Show a message that remains visible."""

    def close(self) -> None:
        """Remove the part of the display that is redrawn; messages remain."""

    def table(self, summary: Mapping[str, Any], run: str) -> None:
        """Show the results of the job."""

    def has_shown(self, log: Path) -> bool:
        """Return whether the content of a log has been shown."""


class LiveScreen:
    """A screen for terminals: the bar remains at the bottom, and notes scroll above it."""

    def __init__(self, console: Console, verbose: bool) -> None:
        """Build a screen that draws on `console`, with one line per worker if `verbose`."""
        self._console = console
        self._verbose = verbose
        self._last: pb.Progress | None = None
        self._ended: pb.Progress | None = None  # the last progress of an epoch whose results have not come yet
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def show(self, progress: pb.Progress) -> None:
        """Redraw the progress bar with the current progress; the first call adds the bar to the terminal."""
        if not self._live.is_started:
            self._live.start()
        last, self._last = self._last, progress
        if self._ended is not None and (found := with_results(self._ended, progress)) is not None:
            self._show_epoch(found)
        complete = progress.phase in COMPLETE or (last is not None and progress.epoch > last.epoch)
        if last is not None and last.phase == "training" and complete:
            self._show_unvalidated()
            self._ended = last
        elif self._ended is not None and progress.elapsed_s > self._ended.elapsed_s + RESULTS_S:
            self._show_unvalidated()
        self._live.update(render(progress, self._verbose), refresh=True)

    def note(self, text: str) -> None:
        """Print a message above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the progress bar from the terminal; messages that were printed above it remain."""
        # The last message may have the results of the last epoch, whose end it reports as well.
        if self._ended is not None and self._last is not None:
            if (found := with_results(self._ended, self._last)) is not None:
                self._show_epoch(found)
        self._show_unvalidated()
        self._live.stop()

    def _show_epoch(self, ended: pb.Progress) -> None:
        self.note(epoch_line(ended, self._console.width))
        self._ended = None

    def _show_unvalidated(self) -> None:
        if self._ended is not None:
            self._show_epoch(without_results(self._ended))

    def table(self, summary: Mapping[str, Any], run: str) -> None:
        """Print the table of results below everything printed so far."""
        self._console.print(summary_table(summary, run))

    def has_shown(self, log: Path) -> bool:
        """Return False: logs are not shown."""
        return False


class PlainScreen:
    """A screen for pipes and files: one line every few seconds and at the end of each epoch."""

    def __init__(self, write: Callable[[str], None], every_s: float = PLAIN_EVERY_S, verbose: bool = False) -> None:
        """Build a screen without output so far.

        Args:
            write: A function that writes one line.
            every_s: The seconds of the job between two lines.
            verbose: Whether to add one line per worker.
        """
        self._write, self._verbose = write, verbose
        self._every_s = every_s
        self._last: pb.Progress | None = None

    def show(self, progress: pb.Progress) -> None:
        """Write a line if one is due, or if the epoch, the phase or the validation accuracy has changed."""
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
        """Write a message as a line."""
        self._write(text)

    def close(self) -> None:
        """Do nothing: nothing is redrawn here."""

    def table(self, summary: Mapping[str, Any], run: str) -> None:
        """Write the results, one per line."""
        for name, value in summary_rows(summary, run):
            self._write(f"{name:<20} {value}")

    def has_shown(self, log: Path) -> bool:
        """Return False: logs are not shown."""
        return False


def open_screen(verbose: bool) -> Screen:
    """Return a live screen if standard output is a terminal, and a screen of plain lines otherwise."""
    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        return UnfailingScreen(LiveScreen(console, verbose))
    return PlainScreen(print_line, verbose=verbose)


class UnfailingScreen:
    """A screen whose terminal may disappear: from then on, nothing is shown, and the job continues."""

    def __init__(self, screen: Screen) -> None:
        """Wrap a screen.

        Args:
            screen: The screen that draws on the terminal.
        """
        self._screen = screen
        self._lost = False

    def show(self, progress: pb.Progress) -> None:
        """Draw the current progress of the job."""
        self._try(lambda: self._screen.show(progress))

    def note(self, text: str) -> None:
        """Show a message that remains visible."""
        self._try(lambda: self._screen.note(text))

    def close(self) -> None:
        """Remove the part of the display that is redrawn; messages remain."""
        self._try(self._screen.close)

    def table(self, summary: Mapping[str, Any], run: str) -> None:
        """Show the results of the job."""
        self._try(lambda: self._screen.table(summary, run))

    def has_shown(self, log: Path) -> bool:
        """Return whether the content of a log has been shown."""
        return self._screen.has_shown(log)

    def _try(self, draw: Callable[[], None]) -> None:
        if self._lost:
            return
        try:
            draw()
        except (OSError, ValueError):
            self._lost = True
            silence()


def silence() -> None:
    """Discard all further output of this process."""
    discard_output(1, 2)
