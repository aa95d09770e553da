"""The output of a cluster that a notebook has started: worker 0's log, and a line of progress that is redrawn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from downpour.deploy.scripts.script_launcher import Notes
from downpour.deploy.view.rendering import WAITING, duration, plain, share
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.logs import print_line

WIDTH = 30  # characters of the bar


class NotebookScreen(Notes):
    """A screen that prints the log of worker 0: a notebook's output is not a file that a process could inherit."""

    def __init__(self, log: Path) -> None:
        """Build a screen that has printed nothing of `log` yet."""
        self._log, self._shown = log, 0
        self._redraw, self._progress = redrawn(), pb.Progress()

    def show(self, progress: pb.Progress) -> None:
        """Print the new lines of the log, and redraw the line of progress where the front end can."""
        super().show(progress)
        if self._log.exists():
            with self._log.open("rb") as log:
                log.seek(self._shown)
                whole, end, _ = log.read().rpartition(b"\n")
            self._shown += len(whole + end)
            if end:
                print_line(whole.decode(errors="replace"))
        if progress.phase:
            self._progress = progress
            if self._redraw is not None:
                self._redraw(bar(progress))

    def has_shown(self, log: Path) -> bool:
        """Return whether a log is that of worker 0, which is shown."""
        return log == self._log

    def close(self) -> None:
        """Print the rest of the log."""
        self.show(self._progress)


def bar(progress: pb.Progress) -> str:
    """Return the progress of a job as one line with a bar, such as `━━━━     0:07  epoch 3/10  25%  loss 0.3`."""
    done = round(share(progress) * WIDTH)
    time = "" if progress.phase in WAITING else f"{duration(progress.elapsed_s)}  "  # `plain` says how long it waits
    return f"{'━' * done}{' ' * (WIDTH - done)}  {time}{plain(progress)}"


def redrawn() -> Callable[[str], None] | None:
    """Return a function that shows a text in place of the previous one, or None outside of a notebook."""
    ipython, display = sys.modules.get("IPython"), sys.modules.get("IPython.display")
    if ipython is None or display is None or not hasattr(ipython.get_ipython(), "kernel"):
        return None
    handle: list[Any] = []

    def redraw(text: str) -> None:
        content = {"text/plain": text}
        if handle:
            handle[0].update(content, raw=True)
        else:
            handle.append(display.display(content, raw=True, display_id=True))

    return redraw
