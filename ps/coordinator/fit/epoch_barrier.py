"""A barrier in a script's `fit`: every worker may send values, which are summed, and worker 0 decides.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest


class EpochBarrier:
    """One barrier of all live workers.

    Attributes:
        sums: The sums of the workers' values, in the order of the workers; None until all have arrived.
        decision: The decision of worker 0; None until it arrives.
        names: The names of the last values, equal on all workers that have sent values.
    """

    def __init__(self) -> None:
        """Create a barrier at which no worker has arrived."""
        self.sums: list[float] | None = None
        self.decision: pb.Decision | None = None
        self.names: list[str] = []
        self._values: dict[int, list[float]] = {}
        self._validation: dict[int, list[float]] = {}  # the states of metrics that the workers have sent

    @classmethod
    def restored(
        cls, sums: Sequence[float] | None, decision: pb.Decision | None = None, names: Sequence[str] = ()
    ) -> EpochBarrier:
        """Return a barrier of a checkpoint, with the sums, if all workers had arrived, and the decision on it."""
        barrier = cls()
        barrier.sums, barrier.decision = None if sums is None else list(sums), decision
        barrier.names = list(names)
        return barrier

    def arrive(self, worker: int, values: Sequence[float], names: Sequence[str] = ()) -> None:
        """Record a worker's values, empty if it had no batch; ignore them if the sums have been computed already.

        Raises:
            InvalidRequest: The other workers sent more or fewer values.
        """
        _check_length(self._values, worker, values, "the same metrics to a barrier")
        if self.sums is None:
            self._values[worker] = list(values)
            self.names = list(names) if values else self.names

    def validate(self, worker: int, values: Sequence[float]) -> None:
        """Record the state of a worker's metrics after its part of the validation data; empty if it has no part.

        Raises:
            InvalidRequest: The other workers sent more or fewer values.
        """
        _check_length(self._validation, worker, values, "the state of the same metrics")
        self._validation.setdefault(worker, list(values))

    def validation(self, live: Collection[int]) -> tuple[list[int], list[float]]:
        """Return the workers that have evaluated their parts, and the sums of what they sent; nothing too early.

        Args:
            live: The workers that live. Those that have died are not waited for.
        """
        workers = sorted(self._validation)
        if not workers or not set(live) <= set(workers):
            return [], []
        values = [self._validation[worker] for worker in workers if self._validation[worker]]
        return workers, [sum(column) for column in zip(*values, strict=True)]

    def unvalidated(self, live: Collection[int]) -> set[int]:
        """Return the workers that others wait for with their parts of the validation data."""
        return set(live) - set(self._validation) if self._validation else set()

    @property
    def arrived(self) -> set[int]:
        """Return the workers that have arrived, also those that have left since."""
        return set(self._values)

    @property
    def passed(self) -> bool:
        """Return whether all have arrived and the decision of worker 0 is there."""
        return self.sums is not None and self.decision is not None

    def propose(self, decision: pb.Decision) -> None:
        """Set the decision of worker 0, which holds once all workers have arrived; a second one is ignored."""
        if self.decision is None:
            self.decision = decision

    def complete(self, live: Collection[int]) -> bool:
        """Compute the sums if all live workers have arrived; return whether this call did so."""
        if self.sums is not None or not self._values or not set(live) <= set(self._values):
            return False
        values = [self._values[worker] for worker in sorted(self._values) if self._values[worker]]
        self.sums = [sum(column) for column in zip(*values, strict=True)]
        return True


def _check_length(known: Mapping[int, Sequence[float]], worker: int, values: Sequence[float], what: str) -> None:
    lengths = {len(others) for others in known.values() if others}
    if lengths and values and lengths != {len(values)}:
        raise InvalidRequest(
            f"all workers must send {what}, {lengths.pop()} numbers; worker {worker} sent {len(values)}. "
            "Run the same script everywhere."
        )
