"""What a worker does in a call of `fit` that the others have completed while it was away: it follows their decisions.

A worker that was suspended for longer than its session may return when the others train in the next call already. It
then goes through the rest of this one without samples, with the logs of the job, and ends it with the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.fit.cluster.completed_fit import CompletedFit


class PastCall:
    """A call of `fit` that is complete, for a worker that is still within it.

    Attributes:
        end: The weights and slots at its end.
    """

    def __init__(self, end: CompletedFit, decisions: Sequence[pb.Decision], last: pb.Decision) -> None:
        """Build the rest of a call.

        Args:
            end: The weights and slots at its end.
            decisions: The decisions of worker 0 on its epochs.
            last: The decision at its end.
        """
        self.end, self._decisions, self._last = end, decisions, last

    def barrier(self, request: pb.BarrierRequest) -> pb.BarrierReply:
        """Return what the workers have received at a barrier."""
        if request.kind == pb.FIT_END:
            decision = self._last
        elif request.epoch >= len(self._decisions):
            decision = pb.Decision(stop=True)
        elif request.kind == pb.EPOCH_BEGIN:
            decision = pb.Decision()  # whose weights and rates this worker needs no more
        else:
            decision = self._decisions[request.epoch]
        return pb.BarrierReply(complete=True, decision=decision)
