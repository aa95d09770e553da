"""The command that a user has given, which the process of the first server records although another one started it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

VARIABLE = "DOWNPOUR_COMMAND"


def record_command(words: Sequence[str]) -> None:
    """Record the words of a command for this process, and for those that it starts."""
    os.environ[VARIABLE] = shlex.join(words)


def command_of_process() -> str:
    """Return the recorded command, or the command line of this process if there is none."""
    return os.environ.get(VARIABLE) or shlex.join(["python", *sys.orig_argv[1:]])
