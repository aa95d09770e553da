"""Checks the replies to pushes, as they arrive at the workers: a push has one outcome, and the trace contains it."""

from __future__ import annotations

from typing import Any

import numpy as np

from downpour.bench.world.system.network import VirtualCall
from downpour.bench.world.system.scheduler import World
from downpour.protos import parameter_server_pb2 as pb

PushNumber = tuple[int, int, int]  # worker, incarnation, seq
EXCHANGE = "/Exchange"  # the end of the name of the method that carries pushes


class PushReplies:
    """The outcomes that shards have reported to workers.

    Attributes:
        applied: The generations in which a worker knows that an update was applied.
    """

    def __init__(self, world: World, replicas: bool) -> None:
        """Create a collection without replies.

        Args:
            world: The world that receives the violations.
            replicas: Whether the weights in a reply are the worker's own, without a version of the shard.
        """
        self._world, self._replicas = world, replicas
        self._senders: dict[VirtualCall, tuple[int, int]] = {}
        self._versions: dict[VirtualCall, tuple[int, int]] = {}
        self._outcomes: dict[tuple[int, int, PushNumber], tuple[int, int]] = {}  # of a shard's generation
        self._claim, self._of_lease = b"", True
        self.applied: set[int] = set()
        self._claims: dict[tuple[VirtualCall, int], bool] = {}  # with whether shard 0 alone can detect it

    def expect_refusal(self, message: bytes, of_lease: bool = True) -> None:
        """Expect the shards to refuse a push that a Byzantine worker has altered and sends next.

        Args:
            message: The altered push.
            of_lease: Whether it claims samples of a lease, which shard 0 alone checks.
        """
        self._claim, self._of_lease = message, of_lease

    def request(self, call: VirtualCall, message: bytes) -> None:
        """Observe a message to a server."""
        if call.method.endswith(EXCHANGE):
            header = _header(pb.Request, message)
            if header.kind == pb.PUSH_PULL:
                self._senders[call] = header.worker, header.incarnation
                if message is self._claim:
                    self._claims[call, header.seq] = self._of_lease

    def reply(self, call: VirtualCall, message: bytes) -> None:
        """Observe a message that has arrived at a worker."""
        if not call.method.endswith(EXCHANGE):
            return
        header = _header(pb.Reply, message)
        if header.waiting:
            return
        if header.seq:
            self._outcome(call, header)
        if not self._replicas and not header.not_modified and header.payload_bytes:
            self._version(call, header)

    def _outcome(self, call: VirtualCall, header: pb.Reply) -> None:
        shard = int(call.connection.server.process.name.partition("-")[2])
        push = (*self._senders[call], header.seq)
        found = int(header.outcome), header.applied_version
        if (call, header.seq) in self._claims and (shard == 0 or not self._claims[call, header.seq]):
            self._world.problem(f"shard {shard} accepted the push {push}, which claims what its worker may not use")
        if header.outcome == pb.BUFFERED:
            return
        if header.outcome == pb.APPLIED:
            self.applied.add(header.generation)
        before = self._outcomes.setdefault((shard, header.generation, push), found)
        if before != found:
            self._world.problem(f"shard {shard} answered the push {push} with {before}, and repeated with {found}")
        if header.outcome == pb.APPLIED and header.payload_bytes and header.version < header.applied_version:
            self._world.problem(f"shard {shard}: the reply to the push {push} has weights that do not contain it")

    def _version(self, call: VirtualCall, header: pb.Reply) -> None:
        now = header.generation, header.version
        if header.seq and now < self._versions.get(call, now):
            self._world.problem(f"a worker received version {now} after {self._versions[call]}")
        self._versions[call] = now

    def check(self, shard: int, trace: np.ndarray, generation: int) -> None:
        """Compare the replies of a shard with its trace.

        Args:
            shard: The number of the shard.
            trace: The records of the shard.
            generation: The last generation: earlier updates may have been undone.
        """
        records = {
            (int(r["worker"]), int(r["incarnation"]), int(r["seq"])): (int(r["outcome"]), int(r["version"]))
            for r in trace
        }
        for (owner, of, push), replied in self._outcomes.items():
            if owner != shard or of != generation:
                continue
            found = records.get(push)
            if found is None:
                self._world.problem(f"trace of shard {shard} lacks the push {push}, which was answered")
            elif found != replied:
                self._world.problem(
                    f"shard {shard}: the push {push} has the outcome and version {found} in the trace, and its worker "
                    f"received the reply {replied}"
                )


def _header(kind: Any, message: bytes) -> Any:
    length = int.from_bytes(message[:4], "little")
    return kind.FromString(message[4 : 4 + length])
