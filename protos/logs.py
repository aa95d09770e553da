"""Log lines of a process: for a person, or one JSON object each, with job, process and worker."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from contextlib import suppress
from typing import Any, Literal

from pydantic import Field

from downpour.protos.settings import Settings


class LogSettings(Settings):
    """How a process writes its log."""

    log_format: Literal["text", "json"] = Field("text", description="log lines for a person, or one JSON object each")

    def take_effect(self) -> None:
        """Sets the format of this process's log."""
        super().take_effect()
        _state["format"] = self.log_format


OF_TENSORFLOW = re.compile(r"[IWEF]\d{4} \d\d:\d\d:|WARNING: All log messages before absl")
_state: dict[str, Any] = {"format": "text", "context": {}}


def identify(**context: Any) -> None:
    """Says what every line of this process belongs to: `job`, `process`, `worker`."""
    _state["context"] = {**_state["context"], **context}


def log(message: str, **facts: Any) -> None:
    """Writes a line with the time to standard error."""
    now = time.time()
    if _state["format"] == "json":
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"time": stamp, "message": message, **_state["context"], "pid": os.getpid(), **facts})
    else:
        line = f"{time.strftime('%H:%M:%S', time.localtime(now))} {message}"
    with suppress(OSError):  # a full disk or a terminal that is gone stops no job
        print(line, file=sys.stderr, flush=True)
