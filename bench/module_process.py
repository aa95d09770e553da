"""Commands that run a module of the package in a new process, independent of the current folder."""

from __future__ import annotations

import os
import sys

from downpour.deploy.launch.environment import child_environment


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module, such as `downpour.ps`, with `arguments`."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment(**own: str) -> dict[str, str]:
    """Return the environment for `module_command`: the inherited variables, and `own`, which take precedence."""
    return child_environment(os.environ, own, ())
