"""Runs a command that ends with its parent process, even if the parent is killed with SIGKILL.

    python -I -S deploy/launch/child.py PARENT SIGNAL FD COMMAND [ARG ...]

This process replaces itself by COMMAND, which keeps the process id and receives SIGNAL when the process PARENT ends.
On Linux the kernel sends the signal (`prctl(2)`, PR_SET_PDEATHSIG) when the thread that started this process ends, so
a launcher starts children from its main thread; the signal may be sent more than once, as the parent's threads end one
by one. On other systems a second process waits for the end of file on the pipe FD, whose other end only the parent
holds, and sends the signal then.

This is a separate program because code between fork and exec can deadlock in a parent that has threads. It imports
nothing of the project, so that it starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tie_by_kernel(parent: int, number: int) -> None:
    """Make the Linux kernel send signal `number` to this process when its parent ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before the call of prctl
        raise SystemExit(1)


def tie_by_pipe(pipe: int, number: int) -> None:
    """Start a second process that sends signal `number` to this one when the pipe's other end closes."""
    guarded = os.getpid()
    if os.fork() != 0:
        os.close(pipe)
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.read(pipe, 1)
    if os.getppid() == guarded:  # otherwise it has ended, and its id may belong to another process
        os.kill(guarded, number)
    os._exit(0)


def main(argv: list[str]) -> None:
    """Tie this process to its parent and replace it by the command."""
    parent, number, pipe = map(int, argv[:3])
    command = argv[3:]
    if sys.platform == "linux":
        tie_by_kernel(parent, number)
        os.close(pipe)
    else:
        tie_by_pipe(pipe, number)
    for ignored in (signal.SIGUSR1, signal.SIGUSR2):  # Slurm sends them to every process; the launcher handles them
        signal.signal(ignored, signal.SIG_IGN)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
