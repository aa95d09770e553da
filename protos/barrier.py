"""When a barrier is answered: the one rule of the coordinator, which holds a call until then, and of the workers."""

from __future__ import annotations

from downpour.protos import parameter_server_pb2 as pb


def is_answered(request: pb.BarrierRequest, reply: pb.BarrierReply, is_leader: bool) -> bool:
    """Return whether a reply has what a worker waits for.

    Args:
        request: What the worker has sent.
        reply: What the coordinator would answer now.
        is_leader: Whether it is worker 0, which waits for the other workers until it decides; they wait for its
            decision.
    """
    if reply.HasField("decision"):
        return True
    undecided = is_leader and not request.HasField("decision")
    if request.validated:
        return undecided and len(reply.validated) > 0
    return reply.complete and (undecided or request.until_complete)
