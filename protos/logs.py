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

from pydantic import Field

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


OF_TENSORFLOW = re.compile(r"[IWEF]\d{4} \d\d:\d\d:|WARNING: All log messages before absl")


def _print_log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_output(line: str) -> None:
    print(line, flush=True)


_state: dict[str, Any] = {"format": "text", "context": {}, "log": _print_log, "output": _print_output}


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
    with suppress(OSError):  # a full disk or a closed terminal must not stop a job
        _state["log"](line)


def write_output(line: str) -> None:
    """Write a line to standard output, for the parent process."""
    _state["output"](line)


def redirect(log_line: Callable[[str], None], output_line: Callable[[str], None]) -> None:
    """Give the lines of the log and of standard output to other functions."""
    _state.update(log=log_line, output=output_line)
