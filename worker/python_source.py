"""Parses the source of a user's module or script without running it."""

from __future__ import annotations

import warnings
from importlib.machinery import SourceFileLoader
from pathlib import Path


def syntax_error(path: Path, source: bytes) -> Exception | None:
    """Return the error with which Python refuses to parse a file, or None if it can be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python reports them when it runs the file
            SourceFileLoader("", str(path)).source_to_code(source, str(path))  # compiles, and runs nothing
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte
        return error
    return None
