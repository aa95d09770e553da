"""Commands of users: the one that started a job, which the first server records, and the one that installs an extra."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "DOWNPOUR_COMMAND"
ROOT = Path(__file__).resolve().parents[2]  # a clone of the repository, or the installed package


def record_command(words: Sequence[str]) -> None:
    """Record the words of a command for this process, and for those that it starts."""
    os.environ[VARIABLE] = shlex.join(words)


def command_of_process() -> str:
    """Return the recorded command, or the command line of this process if there is none."""
    return os.environ.get(VARIABLE) or shlex.join(["python", *sys.orig_argv[1:]])


def install_command(extra: str = "") -> str:
    """Return the command that installs an extra of this package, or what the package itself needs.

    It installs a clone of the repository again in place, into the environment of this process.
    """
    wanted = f"[{extra}]" if extra else ""
    if (ROOT / "pyproject.toml").is_file():
        return f"{shlex.quote(sys.executable)} -m pip install -e '{ROOT}{wanted}'"
    return f"pip install 'downpour-ps{wanted}'"
