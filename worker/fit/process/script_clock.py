"""One time of day for the scripts of all workers, where a script reads it to name a folder or to seed a generator.

Every worker runs the whole script. A folder named by `datetime.now()` must be the same on each of them, because worker
0 writes the files of callbacks into its own. Outside of `fit`, a place in the code of the script that reads the clock
receives the time that the first worker has read there. Libraries, other threads and `time.perf_counter` read the clock.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import hashlib
import os
import sys
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from downpour.worker.fit.process.file_patches import guard

MOST_READINGS = 64  # of one place in the script that are shared; a loop that waits for a time reads more
_PACKAGE = str(Path(__file__).resolve().parents[3])
LIBRARIES = (f"{sysconfig.get_path('stdlib')}{os.sep}", f"{_PACKAGE}{os.sep}", "<frozen")
INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class ScriptClock:
    """The clock of a script in one worker's process."""

    def __init__(self, folder: str) -> None:
        """Build a clock whose readings no worker has shared yet.

        Args:
            folder: A folder that all workers on this machine share; it is created by the first reading.
        """
        self._folder = folder
        self._scope = "script"  # empty within `fit`, in which each worker reads its own clock
        self._readings: Counter[str] = Counter()
        self._time = time.time

    def install(self) -> None:
        """Replace the functions that return the time of day."""
        for name in ("localtime", "gmtime", "ctime"):
            _replace(time, name, self._of_seconds(getattr(time, name)))
        own_strftime, own_asctime, localtime = time.strftime, time.asctime, time.localtime

        def strftime(format: str, *moment: Any) -> str:  # noqa: A002 - the name in Python's documentation
            return own_strftime(format, *(moment or (localtime(self._read(sys._getframe(1))),)))

        def asctime(*moment: Any) -> str:
            return own_asctime(*(moment or (localtime(self._read(sys._getframe(1))),)))

        _replace(time, "strftime", strftime)
        _replace(time, "asctime", asctime)
        _replace(time, "time", lambda: self._read(sys._getframe(1)))
        _replace(time, "time_ns", lambda: int(self._read(sys._getframe(1)) * 1e9))
        self._replace_now()

    @contextmanager
    def of_fit(self, call: int) -> Iterator[None]:
        """Return a context in which each worker reads its own clock.

        Args:
            call: The number of the call of `fit`, from 1.
        """
        self._scope = ""
        try:
            yield
        finally:
            self._scope = f"after fit {call}"

    def _replace_now(self) -> None:
        """Replace methods of `datetime.datetime`, a class of C that has no attributes to assign."""
        kind = datetime.datetime

        def now(cls: Any, tz: datetime.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(self._read(sys._getframe(1)), tz)

        def utcnow(cls: Any) -> Any:
            return cls.fromtimestamp(self._read(sys._getframe(1)), datetime.UTC).replace(tzinfo=None)

        methods: Any = gc.get_referents(vars(kind))[0]
        methods.update(now=classmethod(now), utcnow=classmethod(utcnow))
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))

    def _of_seconds(self, own: Callable[[float], Any]) -> Callable[..., Any]:
        return lambda seconds=None: own(self._read(sys._getframe(1)) if seconds is None else seconds)

    def _read(self, frame: FrameType) -> float:
        """Return the time for the code of a frame: that of the first worker which has read it there, or the own one."""
        now, scope, code = self._time(), self._scope, frame.f_code.co_filename
        if not scope or guard.busy or threading.current_thread() is not threading.main_thread() or _is_library(code):
            return now
        place = f"{scope} {code} {frame.f_lineno}"
        self._readings[place] += 1
        if self._readings[place] > MOST_READINGS:
            return now
        return self._shared(hashlib.sha256(f"{place} {self._readings[place]}".encode()).hexdigest(), now)

    def _shared(self, name: str, now: float) -> float:
        """Return the content of a file of the shared folder, after creating it with a time unless it exists."""
        path, own = os.path.join(self._folder, name), os.path.join(self._folder, f"{name}.{os.getpid()}")
        with guard.entered(), suppress(OSError):  # without a folder that can be written, each worker has its own time
            os.makedirs(self._folder, exist_ok=True)
            with open(own, "w") as file:
                file.write(repr(now))
            with suppress(FileExistsError):
                os.link(own, path)  # unlike a rename, it does not replace the time of another worker
            os.unlink(own)
            with open(path) as file:
                return float(file.read())
        return now


def _is_library(path: str) -> bool:
    return path.startswith(LIBRARIES) or any(part in path for part in INSTALLED)


def _replace(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)
