"""Checks of a script before any process of its cluster starts."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
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
    """Check that a script is a file, or a module that can be found, and that Python can parse it.

    Args:
        script: The path of the script, or `-m` and the name of a module, and the arguments.

    Raises:
        BadScript: It is not; the message is that of Python if that cannot parse it.
    """
    if script[0] == "-m":
        if len(script) < 2:
            raise BadScript("downpour run: -m must be followed by the name of a module", 2)
        return _check_module(script[1])
    name = script[0]
    path = Path(name)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"
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
    _check_source(path)


def _check_source(path: Path) -> None:
    """Raise BadScript, with the message of Python, if that cannot parse a file."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise BadScript(
            f"downpour run: SCRIPT must be readable; {path.absolute()}: {os.strerror(error.errno or 0)}", 2
        ) from error
    if failure := syntax_error(path, source):
        if b"\0" in source:  # of which Python states neither the file nor the line
            raise BadScript(
                f"downpour run: SCRIPT must be a file of Python source; {path.absolute()} contains null bytes. Save it "
                "as UTF-8",
                2,
            )
        raise BadScript("".join(traceback.format_exception_only(failure)).rstrip(), 1)


def _check_module(name: str) -> None:
    """Check that a module can be found, without importing anything, and that Python can parse it.

    A package that changes its own path while it is imported is left to Python.
    """
    found: list[str] = []
    places: Sequence[str] | None = None
    spec = None
    for part in name.split("."):
        if spec is not None and places is not None and _changes_its_path(spec):
            return
        found.append(part)
        spec = _spec_of(".".join(found), places) if len(found) == 1 or places is not None else None
        if spec is None:
            raise _missing(f"No module named {'.'.join(found)}")
        places = spec.submodule_search_locations
    if places is not None and spec is not None:
        if _changes_its_path(spec):
            return
        if (spec := _spec_of(f"{name}.__main__", places)) is None:
            raise _missing(f"{name} is a package without the module __main__")
    if spec is not None and isinstance(spec.loader, SourceFileLoader):
        _check_source(Path(spec.loader.path))


def _spec_of(name: str, places: Sequence[str] | None) -> ModuleSpec | None:
    """Return where a module is found, in the folders of its package or as `python -m` finds it."""
    if places is not None:
        return PathFinder.find_spec(name, places)
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        return next(filter(None, (finder.find_spec(name, None) for finder in sys.meta_path)), None)
    finally:
        del sys.path[0]


def _changes_its_path(package: ModuleSpec) -> bool:
    """Return whether a package may contain modules that are in none of its folders before it is imported."""
    if package.origin is None:
        return False  # a namespace, which is all of its folders
    try:
        return "__path__" in Path(package.origin).read_text(errors="replace")
    except OSError:
        return True


def _missing(what: str) -> BadScript:
    where = f"in {os.getcwd()} or on Python's path"
    return BadScript(f"downpour run: -m must name a module that can be run, {where}; {what}", 1)
