"""What workers other than 0 save: a copy of their own, which they alone load again.

A script that saves a model and loads it does so on every worker, on whichever machine and before worker 0 may be done
with its file. The files that are seen are worker 0's.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any


class Copies:
    """The files of one worker, gone when its process ends."""

    def __init__(self) -> None:
        """There are none."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._places: dict[str, str] = {}

    def place_for(self, path: Any) -> str:
        """Where to write what the script wants at `path`; what was there before is written over."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="downpour-copies-")
        key = os.path.abspath(os.fspath(path))
        if key not in self._places:
            folder = Path(self._folder.name) / str(len(self._places))
            folder.mkdir()
            self._places[key] = str(folder / Path(key).name)
        return self._places[key]

    def close(self) -> None:
        """Removes them."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        self._places.clear()

    def found(self, path: Any) -> Any:
        """Where to read what the script has at `path`: the copy, if this worker has saved there."""
        try:
            return self._places.get(os.path.abspath(os.fspath(path)), path)
        except TypeError:
            return path  # no path: an open file, or an address
