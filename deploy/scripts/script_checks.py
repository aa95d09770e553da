"""Checks of a script before any process of its cluster starts."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from downpour.worker.python_source import syntax_error

ARCHIVES = (".zip", ".pyz", ".pyc")


class BadScript(Exception):
    """A script cannot be run.

    Attributes:
        code: The exit status: 1 if Python would have refused it too, 2 if another path must be given.
    """

    def __init__(self, message: str, code: int) -> None:
        """Build the error from its message and the exit status."""
        super().__init__(message)
        self.code = code


def check_script(name: str) -> None:
    """Check that a script is a file that Python can parse.

    Raises:
        BadScript: It is not; the message is that of Python if that cannot parse it.
    """
    path = Path(name)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        flags = "; flags of downpour run must come before it" if name.startswith("-") else ""
        raise BadScript(f"downpour run: SCRIPT must be a file; {path.absolute()} {what}{flags}", 2)
    if path.suffix == ".ipynb":
        raise BadScript(
            f"downpour run: SCRIPT must be a Python file; {path} is a notebook. Train in it with "
            f"downpour.LocalCluster(...).fit(...), or convert it: jupyter nbconvert --to script {path}",
            2,
        )
    if path.suffix in ARCHIVES:
        return
    try:
        source = path.read_bytes()
    except OSError as error:
        raise BadScript(
            f"downpour run: SCRIPT must be readable; {path.absolute()}: {os.strerror(error.errno or 0)}", 2
        ) from error
    if failure := syntax_error(path, source):
        raise BadScript("".join(traceback.format_exception_only(failure)).rstrip(), 1)
