"""Checks of a script before any process of its cluster starts."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
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


def name_of(script: Sequence[str]) -> str:
    """Return a name for a script or for a module, for the run directory."""
    return script[1].rpartition(".")[2] if script[0] == "-m" else Path(script[0]).stem


def check_script(script: Sequence[str]) -> None:
    """Check that a script is a file that Python can parse; of a module, only that there is a name.

    Args:
        script: The path of the script, or `-m` and the name of a module, and the arguments.

    Raises:
        BadScript: It is not; the message is that of Python if that cannot parse it.
    """
    if script[0] == "-m":
        if len(script) < 2:
            raise BadScript("downpour run: -m must be followed by the name of a module", 2)
        return
    name = script[0]
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
