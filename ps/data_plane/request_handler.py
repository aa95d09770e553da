"""Handles the requests of workers, independently of the transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.ps.core.buffers import Buffer
from downpour.ps.core.push import Outcome, Result
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.data_plane.waiters import HeldWeights

WAITING_EVERY_S = 5.0  # interval between two keep-alive messages to a waiting worker


class PendingReply:
    """A request that has been carried out, and the reply that may leave once `ready` is done.

    Attributes:
        ready: A future that is done when the reply may leave, and whose result holds the weights for it; None if the
            reply may leave now.
    """

    __slots__ = ("ready", "_runtime", "_header", "_pulled", "_outcome")

    def __init__(
        self,
        runtime: ShardRuntime,
        header: pb.Request,
        pulled: HeldWeights | asyncio.Future[HeldWeights] | None,
        outcome: tuple[Result, bool] | None = None,
    ) -> None:
        """Create the reply to a request; only `RequestHandler.handle` does so.

        Args:
            runtime: The shard.
            header: The request.
            pulled: The weights for the reply, held once, or a future of them; None if the reply has no weights.
            outcome: The outcome of the push and whether it was a duplicate; None if the request was not a push.
        """
        self._runtime, self._header, self._outcome = runtime, header, outcome
        self.ready: asyncio.Future[HeldWeights] | None = None
        self._pulled: HeldWeights | None = None
        if isinstance(pulled, tuple):
            self._pulled = pulled
        else:
            self.ready = pulled

    def finish(self) -> tuple[pb.Reply, Buffer | None]:
        """Return the reply and the weights that go with it, held once by the caller from now on."""
        runtime, header = self._runtime, self._header
        shard = runtime.shard or runtime.trained_shard()
        pulled, self._pulled = self._pulled, None
        if self.ready is not None:
            pulled, self.ready = self.ready.result(), None
        if pulled is None:
            return pb.Reply(generation=shard.generation), None
        buffer, version = pulled
        reply = self._outcome_of_push()
        reply.seq, reply.version, reply.generation = header.seq, version, shard.generation
        if runtime.ledger.draining:
            reply.drain = True
        if runtime.builder.counts_in_pulls if self._outcome is None else runtime.builder.counts_in_replies:
            reply.updates.extend(shard.updates)
            reply.gradients.extend(shard.gradients)
        if header.HasField("have_version"):
            held = header.have_version == version and header.generation == shard.generation
            held &= version != shard.assigned_at  # the worker may hold the weights before an assignment
            # With elastic averaging the worker holds weights of its own, not those of a version of the shard.
            reply.not_modified = held and shard.consistency.payload != "replica"
        if header.no_pull or reply.not_modified:
            shard.release(buffer)
            return reply, None
        runtime.metrics.bytes_pulled += buffer.array.nbytes
        return reply, buffer

    def abandon(self) -> None:
        """Release the weights of a reply that will not be sent."""
        (pulled, self._pulled), (ready, self.ready) = (self._pulled, None), (self.ready, None)
        if ready is not None and not ready.cancel() and not ready.cancelled():
            pulled = ready.result()
        if pulled is not None:
            self._runtime.trained_shard().release(pulled[0])

    def _outcome_of_push(self) -> pb.Reply:
        if self._outcome is None:
            return pb.Reply()
        result, duplicate = self._outcome
        if result.outcome == Outcome.BUFFERED:
            shard, header = self._runtime.trained_shard(), self._header
            result = shard.remembered(header.worker, header.incarnation, header.seq) or result
        reply = pb.Reply(
            outcome=int(result.outcome),  # type: ignore[arg-type]
            staleness=result.staleness,
            learning_rate=result.learning_rate,
            applied_version=result.version,
        )
        if duplicate or result.reason:
            reply.duplicate, reply.reason = duplicate, result.reason
        return reply


class RequestHandler:
    """Executes the requests of all transports on one shard.

    Attributes:
        runtime: The shard.
    """

    def __init__(self, runtime: ShardRuntime, deliver: Callable[[], None] = lambda: None) -> None:
        """Create the handler of the requests of one shard.

        Args:
            runtime: The shard.
            deliver: A callback after every request that may have changed the job or the shard's outbox; it must deliver
                what is in the outbox before the next request is processed.
        """
        self.runtime, self._deliver = runtime, deliver

    def handle(
        self, member: pb.Member, header: pb.Request, payload: memoryview | Sequence[bytes], owned: bool = True
    ) -> PendingReply:
        """Execute a request and return its reply.

        Args:
            member: The worker that sent it.
            header: The request.
            payload: The payload, which must not change during the call; in parts only if the shard `takes_parts`.
            owned: Whether the shard may keep a reference to the payload, because it will not be overwritten.

        Raises:
            DownpourError: The shard refuses the request.
        """
        kind, runtime = header.kind, self.runtime
        if kind == pb.PUSH_PULL:
            _check_sender(header, member)
            outcome = runtime.push(header, payload, owned)
            self._deliver()
            shard = runtime.shard or runtime.trained_shard()
            if runtime.waiters.may_answer(shard, header):
                return PendingReply(runtime, header, runtime.answer(shard, header), outcome)
            weights = runtime.waiters.add(member.worker, lambda: runtime.answer(shard, header))
            return PendingReply(runtime, header, weights, outcome)
        if kind == pb.PULL:
            return PendingReply(runtime, header, runtime.pull(header, member.worker))
        assert isinstance(payload, memoryview)
        if kind == pb.INIT:
            runtime.initialise(payload, member.session)
            self._deliver()
        elif kind == pb.ASSIGN:
            runtime.assign(header, payload, member.worker)
        else:
            raise InvalidRequest(
                f"a request's kind must be PUSH_PULL, PULL or INIT; received {kind}. "
                "Check that both sides run the same version."
            )
        return PendingReply(runtime, header, None)


def _check_sender(header: pb.Request, member: pb.Member) -> None:
    """Raise InvalidRequest unless a push comes from the worker whose session it is."""
    if (header.worker, header.incarnation) != (member.worker, member.incarnation):
        raise InvalidRequest(
            f"a push must come from the worker whose session it is, {member.worker}, incarnation "
            f"{member.incarnation}; received worker {header.worker}, incarnation {header.incarnation}. "
            "Send the numbers that registration returned."
        )
