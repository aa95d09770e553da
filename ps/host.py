"""A shard in its process: builds it when layout and weights are known, and keeps those who wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from protos import parameter_server_pb2 as pb
from protos.codec import codec_named
from protos.errors import InvalidRequest, JobConflict, UnknownWorker
from protos.layout import Layout, Slice
from ps import trace
from ps.buffers import Buffer
from ps.config import JobSettings
from ps.consistency import consistency_of
from ps.metrics import Metrics
from ps.optimizers import Optimizer
from ps.shard import Push, Result, Shard
from ps.staleness import POLICIES


class ShardHost:
    """One shard, its members, its metrics, its trace and its waiters; all on one event loop.

    Attributes:
        shard: The weights; None until they are initialised.
        slice: What this shard owns; None until the layout is known.
        trace: Records that nobody has taken yet.
    """

    def __init__(
        self,
        index: int,
        emit: Callable[[pb.ShardEvent], None],
        admit: Callable[[Push], None] = lambda push: None,
        accepted: Callable[[Push], None] = lambda push: None,
    ) -> None:
        """A shard without settings, layout or weights; they arrive as commands.

        Args:
            index: Number of the shard.
            emit: Takes what the shard reports to the coordinator.
            admit: Raises if a new push may not count (the ledger's word, on shard 0).
            accepted: Told of every push that counts.
        """
        self.index, self._emit, self._admit, self._accepted = index, emit, admit, accepted
        self.settings: JobSettings | None = None
        self.slice: Slice | None = None
        self.shard: Shard | None = None
        self.metrics = Metrics()
        self.trace = bytearray()
        self.draining = False
        self.stopped = asyncio.Event()
        self._members: dict[int, pb.Member] = {}
        self._waiters: dict[int, asyncio.Future[tuple[Buffer, int]]] = {}
        self._start_s = time.monotonic()

    # ------------------------------------------------------------------ commands of the coordinator

    def command(self, command: pb.ShardCommand) -> None:
        """Does what the coordinator says and reports that it is done."""
        if command.settings:
            self.settings = JobSettings.model_validate_json(command.settings)
        if command.HasField("layout"):
            assert self.settings is not None
            self.slice = Layout.from_proto(command.layout).cut(self.settings.shards)[self.index]
        if command.HasField("view"):
            self._adopt(command.view)
        if command.pin and self.shard:
            self.shard.pin(command.pin)
            self._emit(pb.ShardEvent(pinned=command.pin))
        if command.unpin and self.shard:
            self.shard.unpin(command.unpin)
        if command.stop:
            self.stopped.set()

    def _adopt(self, view: pb.View) -> None:
        """Believes the newest view: who is not in it leaves."""
        new = {member.session: member for member in view.members}
        for session, member in self._members.items():
            if session not in new and self.shard:
                self.shard.leave(member.worker)
        for session, member in new.items():
            if session not in self._members and self.shard:
                self.shard.join(member.worker, member.incarnation)
        self._members = new
        self._open_gates()
        self._emit(pb.ShardEvent(view_seen=view.number))

    # ------------------------------------------------------------------ what streams ask for

    def member_of(self, session: int) -> pb.Member:
        """The worker whose session it is.

        Raises:
            UnknownWorker: It is not in the current view.
        """
        member = self._members.get(session)
        if member is None:
            raise UnknownWorker(
                f"a session must be in the coordinator's current view of {len(self._members)} workers; "
                "received one that is not. It expired or was taken over: register again."
            )
        return member

    def limit_bytes(self, header: pb.Request) -> int:
        """The most payload that a frame with such a header may have."""
        if self.slice is None or header.kind == pb.PULL:
            return 0
        if header.kind == pb.INIT:
            return 4 * self.slice.size
        return codec_named(header.codec).size_bytes(self.slice.trained) + 4 * self.slice.state

    def initialise(self, payload: memoryview) -> None:
        """Sets version 0; a repetition before the first update changes nothing.

        Raises:
            InvalidRequest: The payload has another length than this shard's slice.
            JobConflict: The shard has been trained already.
        """
        if self.shard is not None:
            if self.shard.version:
                raise JobConflict(
                    f"this shard is at version {self.shard.version}: its weights are not set again."
                )
            return
        assert self.slice is not None and self.settings is not None
        if len(payload) != 4 * self.slice.size:
            raise InvalidRequest(
                f"the initial weights of shard {self.index} must be {self.slice.size:,} float32; "
                f"received {len(payload):,} bytes. Check that both sides cut the model into as many shards."
            )
        settings = self.settings
        self.shard = Shard(
            np.frombuffer(payload, np.float32),
            Optimizer(settings.optimizer, settings.hyper, self.slice.trained),
            consistency_of(settings.mode),
            POLICIES[settings.staleness],
            self._record,
        )
        for member in self._members.values():
            self.shard.join(member.worker, member.incarnation)
        self._emit(pb.ShardEvent(initialised=True))

    def trained_shard(self) -> Shard:
        """The shard.

        Raises:
            InvalidRequest: It has no weights yet.
        """
        if self.shard is None:
            raise InvalidRequest(
                "weights must be initialised before they are pulled or pushed to: ask Ready first."
            )
        return self.shard

    def push(self, header: pb.Request, payload: memoryview) -> tuple[Result, bool]:
        """Takes a push; returns its outcome so far and whether it is a repetition.

        Raises:
            InvalidRequest: It is malformed, or for samples that the worker may not use now.
            UnknownWorker: Its session has ended.
            Fenced: It is meant for an earlier life of the shard.
            FutureVersion: Its base version has not been reached.
        """
        shard = self.trained_shard()
        known = shard.recorded(header.worker, header.incarnation, header.seq)
        if known is not None:
            self.metrics.duplicates += 1
            return known, True
        shard.check_generation(header.generation)
        push, gradient = push_of(header), self._decode(header, payload)
        if push.lease:
            self._admit(push)
        result = shard.push(push, gradient)
        self.metrics.bytes_pushed += len(payload)
        if push.lease:
            self._accepted(push)
        self._open_gates()
        return result, False

    def gate(self, worker: int) -> asyncio.Future[tuple[Buffer, int]]:
        """A future of the weights that are committed when the worker may proceed; it holds them."""
        shard = self.trained_shard()
        gate: asyncio.Future[tuple[Buffer, int]] = asyncio.get_running_loop().create_future()
        if shard.may_proceed(worker):
            gate.set_result(shard.pull())
        else:
            self._waiters[worker] = gate
        return gate

    def _open_gates(self) -> None:
        if self._waiters and self.shard:
            for worker in [worker for worker in self._waiters if self.shard.may_proceed(worker)]:
                gate = self._waiters.pop(worker)
                if not gate.done():
                    gate.set_result(self.shard.pull())

    def _decode(self, header: pb.Request, payload: memoryview) -> np.ndarray:
        assert self.slice is not None
        if header.nonfinite:
            return np.zeros(0, np.float32)
        codec, split = codec_named(header.codec), len(payload) - 4 * self.slice.state
        if header.codec == "float32":
            return codec.decode(payload, self.slice.size)
        gradient = codec.decode(payload[:split], self.slice.trained)
        return np.concatenate((gradient, np.frombuffer(payload[split:], np.float32)))

    def _record(self, push: Push, result: Result) -> None:
        now = time.monotonic()
        self.metrics.record(push, result, now)
        self.trace += trace.pack(push, result, now - self._start_s)

    def count(self) -> pb.ShardCount:
        """Totals for the coordinator."""
        return pb.ShardCount(
            version=self.shard.version if self.shard else 0,
            dropped=self.metrics.dropped.total(),
            duplicates=self.metrics.duplicates,
            bytes_pushed=self.metrics.bytes_pushed,
            bytes_pulled=self.metrics.bytes_pulled,
        )

    def take_trace(self) -> bytes:
        """The records since the last call."""
        records, self.trace = bytes(self.trace), bytearray()
        return records


def push_of(header: pb.Request) -> Push:
    """What a frame's header says of its push."""
    return Push(
        worker=header.worker,
        incarnation=header.incarnation,
        seq=header.seq,
        base_version=header.base_version,
        samples=header.samples,
        norm=header.norm,
        nonfinite=header.nonfinite,
        loss=header.loss,
        correct=header.correct,
        lease=header.lease,
        epoch=header.epoch,
        start=header.start,
        stop=header.stop,
    )
