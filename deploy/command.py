"""`python -m downpour.deploy.command MODULE ARGS`: runs a module of the package; Ctrl-C ends it without a traceback.

Launchers (`train`, `run`) do not use it: the first Ctrl-C asks their jobs to end in order, with exit status 0. It asks
`ps` and `worker` as well, which handle it themselves once their modules are imported.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
PROGRAM = os.getpid()
MESSAGE = "downpour: interrupted; there is no result"


def main() -> None:
    """Run the module as `python -m MODULE ARGS` would."""
    signal.signal(signal.SIGINT, interrupted)
    del sys.argv[0]
    module = sys.argv[0]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        leave()


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt once, so that processes and temporary files are removed; a second signal ends at once."""
    if os.getpid() != PROGRAM:  # a process that the program has forked, and will end
        os._exit(INTERRUPTED)
    signal.signal(signal.SIGINT, lambda number, frame: leave())
    setattr(threading, "excepthook", lambda failure: None)  # noqa: B010 (threads fail once what they work for is gone)
    raise KeyboardInterrupt


def leave() -> NoReturn:
    """Exit without waiting for threads that still compute."""
    sys.stdout.flush()
    print(MESSAGE, file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
