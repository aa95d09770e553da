"""The log of a process: lines of text, or one JSON object per line with the job, the process and the worker."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from pydantic import Field, ValidationError

from downpour.protos.settings import Settings
from downpour.protos.system import clock


class LogSettings(Settings):
    """The settings of a process's log."""

    log_format: Literal["text", "json"] = Field(
        "text", description="Format of the log: text, or one JSON object per line."
    )

    def take_effect(self) -> None:
        """Set the format of this process's log."""
        super().take_effect()
        _state["format"] = self.log_format


def reason_of(error: BaseException) -> str:
    """Return why something failed, in words for a user: without error numbers and names of Python's classes."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {os.fsdecode(error.filename)}"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing" if error.args else "a part is missing"
    if isinstance(error, ValidationError):
        found = [(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()]
        return "; ".join(f"{place}: {text[:1].lower()}{text[1:]}" for place, text in found)
    return re.sub(r"\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


OF_TENSORFLOW = re.compile(r"[IWEF]\d{4} \d\d:\d\d:|WARNING: All log messages before absl")


def print_line(line: str, error: bool = False) -> None:
    """Write a line to standard output, or to standard error. A failure loses the line and never ends a program.

    The line is written past Python's buffer: after a failure, as on a full disk or a terminal that is gone, Python
    would try to write the buffer again when the program ends, and change its exit status.
    """
    stream, own = (sys.stderr, sys.__stderr__) if error else (sys.stdout, sys.__stdout__)
    if stream is None or own is None:  # closed when the program began
        return
    with suppress(OSError, ValueError):
        if stream is not own:  # a test or a notebook has replaced it
            print(line, file=stream, flush=True)
            return
        stream.flush()
        data = memoryview(f"{line}\n".encode(stream.encoding, "backslashreplace"))
        while data:
            data = data[os.write(stream.fileno(), data) :]


def discard_output(*numbers: int) -> None:
    """Discard all further output of this process to the file descriptors `numbers`."""
    null = os.open(os.devnull, os.O_WRONLY)
    for number in numbers:
        os.dup2(null, number)
    if null not in numbers:
        os.close(null)


def open_standard_streams() -> None:
    """Open the standard streams that the parent process has closed, as `command >&-` does.

    Without this, the next file that the program opens would take the place of one, and receive what is printed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _print_log(line: str) -> None:
    print_line(line, error=True)


_state: dict[str, Any] = {"format": "text", "context": {}, "log": _print_log, "output": print_line}


def identify(**context: Any) -> None:
    """Set the fields that every JSON line of this process carries: `job`, `process`, `worker`."""
    _state["context"] = {**_state["context"], **context}


def log(message: str, **facts: Any) -> None:
    """Write a line with the time to standard error."""
    now = clock.wall()
    if _state["format"] == "json":
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"time": stamp, "message": message, **_state["context"], "pid": os.getpid(), **facts})
    else:
        line = f"{time.strftime('%H:%M:%S', time.localtime(now))} {message}"
    _state["log"](line)


def write_output(line: str) -> None:
    """Write a line to standard output, for the parent process."""
    _state["output"](line)


def redirect(log_line: Callable[[str], None], output_line: Callable[[str], None]) -> None:
    """Give the lines of the log and of standard output to other functions."""
    _state.update(log=log_line, output=output_line)


def restore() -> None:
    """Write the lines of the log to standard error again, and others to standard output."""
    redirect(_print_log, print_line)
