"""The project's functions on the stack of a call, in this process or in a server that this module runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from downpour.ps import __main__ as server
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.data_plane import shard_runtime
from downpour.ps.data_plane.grpc_stream import _Exchange
from downpour.ps.data_plane.request_handler import PendingReply
from downpour.ps.data_plane.shared_memory import SharedMemoryListener
from downpour.ps.data_plane.tcp.connection import TcpConnection
from tests.support.paths import ROOT

STACKS = "TEST_STACKS"  # environment variable: the file to which a server writes
Stack = list[tuple[str, str]]


def function_of(code: Any) -> tuple[str, str] | None:
    """Return file and qualified name of a function of the project, None for others."""
    path = Path(code.co_filename).resolve()
    if not path.is_relative_to(ROOT) or path.relative_to(ROOT).parts[0] not in ("protos", "ps", "worker"):
        return None
    return str(path.relative_to(ROOT)), code.co_qualname.partition(".<locals>")[0]


def stack_of(frame: FrameType | None) -> Stack:
    """Return the project's functions on a stack, outermost first, from the event loop's callback on."""
    found: Stack = []
    while frame is not None and frame.f_code.co_qualname != "Handle._run":
        function = function_of(frame.f_code)
        if function and function not in found:
            found.append(function)
        frame = frame.f_back
    return found[::-1]


def recording(original: Callable[..., Any], record: Callable[[Stack], None]) -> Callable[..., Any]:
    """Return a function that passes on the stack of its call, with itself at the end, and then calls the original."""
    own = function_of(original.__code__)
    assert own is not None

    def called(*arguments: Any, **options: Any) -> Any:
        record([*stack_of(sys._getframe(1)), own])
        return original(*arguments, **options)

    return called


def main() -> None:
    """Run a server that writes the stacks of its first pushes and their replies as JSON."""
    stacks: list[Stack] = []

    def record(stack: Stack) -> None:
        if len(stacks) < 30:
            stacks.append(stack)
            Path(os.environ[STACKS]).write_text(json.dumps(stacks))

    for owner, name in (
        (Optimizer, "advance"),
        (shard_runtime, "decode_push"),
        (PendingReply, "finish"),
        (SharedMemoryListener, "_reply"),
        (TcpConnection, "_send_reply"),
        (_Exchange, "_send"),
    ):
        setattr(owner, name, recording(getattr(owner, name), record))
    sys.exit(server.main(sys.argv[1:]))


if __name__ == "__main__":
    main()
