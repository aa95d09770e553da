"""From a worker's request to the reply, whatever the transport."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.ps.core.buffers import Buffer
from downpour.ps.core.push import Outcome, Result
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.data_plane.waiters import Pulled

WAITING_EVERY_S = 5.0  # a worker at a closed gate hears so often that the server lives


class Answer:
    """A request that has been carried out, and the reply that may leave once its gate is open.

    Attributes:
        gate: Done when the reply may leave; its result holds the weights for it. None: it may leave now.
    """

    __slots__ = ("gate", "_host", "_header", "_pulled", "_outcome")

    def __init__(
        self,
        host: ShardRuntime,
        header: pb.Request,
        pulled: Pulled | asyncio.Future[Pulled] | None,
        outcome: tuple[Result, bool] | None = None,
    ) -> None:
        """Made by `begin`."""
        self._host, self._header, self._outcome = host, header, outcome
        self.gate: asyncio.Future[Pulled] | None = None
        self._pulled: Pulled | None = None
        if isinstance(pulled, tuple):
            self._pulled = pulled
        else:
            self.gate = pulled

    def finish(self) -> tuple[pb.Reply, Buffer | None]:
        """The reply and the weights that go with it, held once by the caller from now on."""
        host, header = self._host, self._header
        shard = host.shard or host.trained_shard()
        pulled, self._pulled = self._pulled, None
        if self.gate is not None:
            pulled, self.gate = self.gate.result(), None
        if pulled is None:
            return pb.Reply(generation=shard.generation), None
        buffer, version = pulled
        reply = self._outcome_of_push()
        reply.seq, reply.version, reply.generation = header.seq, version, shard.generation
        if host.draining:
            reply.drain = True
        if header.HasField("have_version"):
            held = header.have_version == version and header.generation == shard.generation
            # With elastic averaging what the worker holds of a version is its own, not the shard's.
            reply.not_modified = held and shard.consistency.payload != "replica"
        if header.no_pull or reply.not_modified:
            shard.release(buffer)
            return reply, None
        host.metrics.bytes_pulled += buffer.array.nbytes
        return reply, buffer

    def abandon(self) -> None:
        """Gives up a reply that nobody will hear."""
        (pulled, self._pulled), (gate, self.gate) = (self._pulled, None), (self.gate, None)
        if gate is not None and not gate.cancel() and not gate.cancelled():
            pulled = gate.result()
        if pulled is not None:
            self._host.trained_shard().release(pulled[0])

    def _outcome_of_push(self) -> pb.Reply:
        if self._outcome is None:
            return pb.Reply()
        result, duplicate = self._outcome
        if result.outcome == Outcome.BUFFERED:
            shard, header = self._host.trained_shard(), self._header
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


def begin(
    host: ShardRuntime, member: pb.Member, header: pb.Request, payload: memoryview | Sequence[bytes], owned: bool = True
) -> Answer:
    """Carries out a request.

    Args:
        host: The shard.
        member: Who asks.
        header: The request.
        payload: Its payload; must not change while this call lasts. In parts only if the shard `takes_parts`.
        owned: Whether it may be kept, because nobody will write to it afterwards.

    Raises:
        DownpourError: As the shard refuses.
    """
    kind = header.kind
    if kind == pb.PUSH_PULL:
        if (header.worker, header.incarnation) != (member.worker, member.incarnation):
            raise InvalidRequest(
                f"a push must come from the worker whose session it is, {member.worker}, incarnation "
                f"{member.incarnation}; received worker {header.worker}, incarnation {header.incarnation}. "
                "Send what the session says."
            )
        outcome = host.push(header, payload, owned)
        return Answer(host, header, host.gate(member.worker, not header.no_pull), outcome)
    if kind == pb.PULL:
        return Answer(host, header, host.pull(header, member.worker))
    assert isinstance(payload, memoryview)
    if kind == pb.INIT:
        host.initialise(payload)
    elif kind == pb.ASSIGN:
        host.assign(header, payload)
    else:
        raise InvalidRequest(
            f"a request's kind must be PUSH_PULL, PULL or INIT; received {kind}. "
            "Check that both sides run the same version."
        )
    return Answer(host, header, None)
