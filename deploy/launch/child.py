"""Starts a command that cannot outlive its parent, kill -9 of the parent included.

    python -I -S deploy/launch/child.py PARENT SIGNAL FD COMMAND [ARG ...]

Becomes COMMAND (the process number stays), which receives SIGNAL when the process PARENT ends. Linux does
that itself (`prctl(2)`, PR_SET_PDEATHSIG) when the thread that started us ends, so a launcher starts
children from its main thread; as the parent's threads end one by one, the signal may come more than
once. Elsewhere a small second process waits for the end of file on the pipe FD, whose other end the
parent alone holds, and then sends the signal.

It is a program of its own because the alternative, code between fork and exec, deadlocks in a parent
that has threads; it imports nothing of the project so that it costs milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tie_by_kernel(parent: int, number: int) -> None:
    """Asks Linux to send signal `number` to this process when its parent ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before we had asked
        raise SystemExit(1)


def tie_by_pipe(pipe: int, number: int) -> None:
    """Leaves a second process that sends signal `number` to this one when the pipe's other end closes."""
    guarded = os.getpid()
    if os.fork() != 0:
        os.close(pipe)
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.read(pipe, 1)
    if os.getppid() == guarded:  # else it has ended, and its number may be another process's by now
        os.kill(guarded, number)
    os._exit(0)


def main(argv: list[str]) -> None:
    """Ties this process to its parent and becomes the command."""
    parent, number, pipe = map(int, argv[:3])
    command = argv[3:]
    if sys.platform == "linux":
        tie_by_kernel(parent, number)
        os.close(pipe)
    else:
        tie_by_pipe(pipe, number)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
