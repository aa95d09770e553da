"""The meeting at the end of an epoch of a script's `fit`: everybody brings numbers, worker 0 decides. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest


class EpochBarrier:
    """One meeting of the live workers.

    Attributes:
        sums: Of the numbers that all brought, in the order of the workers; None until all are here.
        decision: What worker 0 has decided; None before.
    """

    def __init__(self) -> None:
        """Nobody is here."""
        self.sums: list[float] | None = None
        self.decision: pb.Decision | None = None
        self._values: dict[int, list[float]] = {}

    def arrive(self, worker: int, values: Sequence[float]) -> None:
        """Takes what a worker brings, nothing if it had no batch; once the sums are made, it comes too late to count.

        Raises:
            InvalidRequest: The others bring more or fewer numbers.
        """
        lengths = {len(brought) for brought in self._values.values() if brought}
        if lengths and values and lengths != {len(values)}:
            raise InvalidRequest(
                f"all workers must bring the same metrics to a meeting, {lengths.pop()} numbers; worker {worker} "
                f"brings {len(values)}. Run the same script everywhere."
            )
        if self.sums is None:
            self._values[worker] = list(values)

    def has(self, worker: int) -> bool:
        """Whether a worker is here."""
        return worker in self._values

    def close(self, live: Collection[int]) -> bool:
        """Makes the sums if all live workers are here; returns whether it just did."""
        if self.sums is not None or not self._values or not set(live) <= set(self._values):
            return False
        brought = [self._values[worker] for worker in sorted(self._values) if self._values[worker]]
        self.sums = [sum(column) for column in zip(*brought, strict=True)]
        return True
