"""Runs a script or a module as Python's command line does, with the same arguments, path and `__main__`."""

from __future__ import annotations

import builtins
import os
import runpy
import sys
import types
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader

ARCHIVES = (".zip", ".pyz", ".pyc")


class MainLoader(SourceFileLoader):
    """A loader of a script that, like Python's command line, writes no compiled file."""

    def get_code(self, fullname: str) -> types.CodeType | None:
        """Return the code of the script."""
        return self.source_to_code(self.get_data(self.path), self.path)


def run_main(command: Sequence[str]) -> None:
    """Run `SCRIPT ARGS` or `-m MODULE ARGS`.

    `sys.argv`, `sys.path[0]` and `__file__` are those of `python SCRIPT ARGS` or `python -m MODULE ARGS`.

    Args:
        command: The path of the script, or `-m` and the name of the module, and the arguments.
    """
    if command[0] == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv = ["-m", *command[2:]]  # runpy replaces the first element by the path of the module
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        return
    path = command[0]
    sys.argv = list(command)
    if path.endswith(ARCHIVES) or os.path.isdir(path):
        runpy.run_path(path, run_name="__main__")
        return
    place = os.path.abspath(path)
    sys.path.insert(0, os.path.dirname(os.path.realpath(place)))
    main, loader = types.ModuleType("__main__"), MainLoader("__main__", place)
    vars(main).update(__file__=place, __builtins__=builtins, __loader__=loader, __cached__=None)
    sys.modules["__main__"] = main  # for pickle, and for processes that multiprocessing starts
    loader.exec_module(main)
