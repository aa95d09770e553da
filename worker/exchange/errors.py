"""Errors that end a worker and do not come from a server, and the exit code of every error that ends one."""

from __future__ import annotations

from downpour.protos.errors import DownpourError, JobConflict, LayoutMismatch, Unsupported

UNRECOVERABLE = 3  # exit code of a worker for which a restart would be useless


class Diverged(Exception):
    """Too many gradients in a row were not finite."""


class JobFailed(Exception):
    """The coordinator ended the job without a result."""


class Stopped(Exception):
    """The worker received a signal to stop while it waited for the coordinator."""


class WorkerFailed(DownpourError):
    """An error of another worker has ended `fit`, and this process does not know the error's class."""


WORKER_ERRORS = (Diverged, JobFailed, DownpourError, ValueError)


def exit_code_of(error: Exception) -> int:
    """Return the exit code of a worker that one of `WORKER_ERRORS` has ended."""
    hopeless = Diverged, LayoutMismatch, JobConflict, Unsupported, ValueError
    return UNRECOVERABLE if isinstance(error, hopeless) else 1
