"""The rank of the worker that this process runs a script as, and the number of workers of its job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from downpour.protos import parameter_server_pb2 as pb


class Ranked(Protocol):
    """The part of a cluster's worker that a script may use."""

    @property
    def rank(self) -> int:
        """Return the rank, from 0 to `size - 1`."""

    @property
    def size(self) -> int:
        """Return the number of workers that the job was started with."""

    @property
    def address(self) -> str:
        """Return the address of the coordinator, `HOST:PORT`."""

    @property
    def lease_batches(self) -> int:
        """Return the number of batches in a lease; 0 if it follows from the data and the number of workers."""

    @property
    def is_leader(self) -> bool:
        """Return whether this is worker 0, the leader."""

    def progress(self) -> pb.Progress:
        """Return the progress of the job. Raises DownpourError if the coordinator does not answer."""


class Separated(Protocol):
    """The part of a worker's process that keeps its random numbers and files apart from those of the others."""

    def of_fit(self, call: int) -> AbstractContextManager[None]:
        """Return a context in which random numbers differ between workers; `call` counts calls of `fit`, from 1."""


member: Ranked | None = None  # None in a process that `downpour run` has not started
in_loop = False  # within `downpour.training`
_process: Separated | None = None


def run_as(worker: Ranked, process: Separated | None = None) -> None:
    """Make this process run its script as a worker of a cluster. Called once, before the script begins."""
    global member, _process
    member, _process = worker, process


def of_fit(call: int) -> AbstractContextManager[None]:
    """Return a context in which random numbers differ between workers, and worker 0's files are published.

    Args:
        call: The number of the call of `fit`, from 1.
    """
    return nullcontext() if _process is None else _process.of_fit(call)


@contextmanager
def looping() -> Iterator[None]:
    """Return a context in which the script divides the data among the workers itself: a training loop."""
    global in_loop
    in_loop = True
    try:
        yield
    finally:
        in_loop = False


def rank() -> int:
    """Return the rank of this worker, from 0 to `size() - 1`.

    Worker 0 is the leader: it validates, shows the progress bar and writes what is saved. Use the rank for what a
    script must do only once.

        if downpour.rank() == 0:
            print("trained")

    Returns:
        The rank; 0 in a script that was not started with `downpour run`.
    """
    return member.rank if member is not None else 0


def size() -> int:
    """Return the number of workers that the job was started with.

    It does not change when a worker fails or is started again.

        learning_rate = 0.1 / downpour.size()

    Returns:
        The number of workers; 1 in a script that was not started with `downpour run`.
    """
    return member.size if member is not None else 1
