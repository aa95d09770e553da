"""A shard in its process: processes the requests of workers, and keeps those that must wait.

`ShardCommands` executes the coordinator's commands. Events for the coordinator are appended to `outbox`; the caller of
a method or of a command delivers them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.codecs.codec import check_length
from downpour.protos.errors import InvalidRequest, JobConflict, UnknownWorker
from downpour.protos.layout import Slice
from downpour.protos.sentences.sentence import counted
from downpour.protos.system import clock
from downpour.ps.core.push import Outcome, Result
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import compensation_of
from downpour.ps.data_plane.cut import ShardCut
from downpour.ps.data_plane.decode_push import decode_push, limit_bytes
from downpour.ps.data_plane.ordered_requests import OrderedCut, OrderedWaiters, drive
from downpour.ps.data_plane.push_ledger import EveryPushCounts, PushLedger
from downpour.ps.data_plane.session_buffers import SessionBuffers
from downpour.ps.data_plane.shard_builder import ShardBuilder, settings_of
from downpour.ps.data_plane.snapshot import ShardState, Snapshot, put_state, take_state, weights_state
from downpour.ps.data_plane.waiters import HeldWeights, Waiters
from downpour.ps.trace.call_log import Call, CallLog
from downpour.ps.trace.call_order import CallOrder
from downpour.ps.trace.metrics import Metrics
from downpour.ps.trace.outcome_log import OutcomeLog


class ShardRuntime:
    """One shard with its members, its metrics, its trace and its waiting workers; all on one event loop.

    Attributes:
        index: The number of the shard.
        ledger: The object that decides whether pushes for leased samples count.
        builder: The builder, with the settings and the layout that the shard is built from.
        shard: The weights; None until they are initialised.
        outbox: Events and snapshots for the coordinator, in order.
        members: The members of the newest view, by session.
        cut: The newest pushes, and the pushes held back while a cut is taken.
        waiters: The workers whose reply must wait.
        session_buffers: The buffers of weights that workers on this host read in place, which must not be overwritten.
        transports: The transports by which workers have reached the shard.
        records: The trace of the outcomes.
        calls: The calls on the shard, if the job is recorded.
        generation: The number of the shard's generation; state of an earlier generation is void.
        initialisation: The number of the present initialisation.
        void: Whether the shard's state belongs to an earlier generation, or initialisation.
        assigned: The number of times that workers have assigned weights or slots.
    """

    def __init__(
        self,
        index: int,
        ledger: PushLedger | None = None,
        record_push_s: Callable[[float], None] | None = None,
        order: CallOrder | None = None,
    ) -> None:
        """Create a shard without settings, layout or weights; they arrive as commands.

        Args:
            index: The number of the shard.
            ledger: The object that decides whether pushes for leased samples count; None if all count.
            record_push_s: A callback that receives the seconds that each push took; None to measure nothing.
            order: The recorded order in which requests are served, if a script is replayed; None otherwise.
        """
        self.index, self.ledger, self._record_push_s = index, ledger or EveryPushCounts(), record_push_s
        self.builder = ShardBuilder(index)
        self.shard: Shard | None = None
        self.outbox: deque[pb.ShardEvent | Snapshot] = deque()
        self.members: dict[int, pb.Member] = {}
        self.cut = ShardCut() if order is None else OrderedCut(order)
        self.waiters = Waiters() if order is None else OrderedWaiters(order)
        self.session_buffers = SessionBuffers()
        self.metrics = Metrics()
        self.transports: set[str] = set()
        self.records = OutcomeLog(self.metrics, clock.monotonic)
        self.calls = CallLog() if order is None else order
        self._rates: deque[Sequence[pb.LearningRates]] = deque()  # that are not in effect yet
        if order is not None:
            order.add_advance_callback(partial(self._drive, order))
            order.add_advance_callback(self._apply_rates)
        self.generation, self.initialisation, self.assigned = 1, 0, 0
        self.void = False
        self._initialiser = 0  # the session of the worker that has set the initial weights

    # ------------------------------------------------------------------ sizes and members

    @property
    def size(self) -> int:
        """Return the number of elements that this shard owns; 0 until the layout is known."""
        return self.builder.size

    @property
    def region_bytes(self) -> int:
        """Return the largest payload that any frame of a worker may have."""
        codec = self.builder.codec
        return max(self.limit_bytes(pb.Request(kind=kind, codec=codec)) for kind in (pb.INIT, pb.PUSH_PULL))

    def limit_bytes(self, header: pb.Request) -> int:
        """Return the largest payload that a frame with such a header may have."""
        return limit_bytes(header, self.builder.slice)

    def takes_parts(self, header: pb.Request) -> bool:
        """Return whether the payload of such a request may come in several messages that are not joined."""
        plain = header.kind == pb.PUSH_PULL and header.codec == "float32"
        return plain and self.shard is not None and self.shard.reads_once

    def held(self, header: pb.Request) -> asyncio.Future[None] | None:
        """Return a future that a push must wait for, unread, before it is checked again; None if it may be taken."""
        return self.cut.held(header)

    def member_of(self, session: int) -> pb.Member:
        """Return the worker that has a session.

        Raises:
            UnknownWorker: No worker of the current view has the session.
        """
        member = self.members.get(session)
        if member is None:
            raise UnknownWorker(
                f"a session must be in the coordinator's current view of {counted(len(self.members), 'worker')}; "
                "received one that is not. It expired or was taken over: register again."
            )
        return member

    def trained_shard(self) -> Shard:
        """Return the shard, which must have weights.

        Raises:
            InvalidRequest: The shard has no weights yet.
        """
        if self.shard is None:
            raise InvalidRequest("weights must be initialised before they are pulled or pushed to: call Ready first.")
        return self.shard

    def _drive(self, order: CallOrder) -> None:
        drive(order, self.shard)

    @property
    def waiting(self) -> bool:
        """Return whether a request waits for its turn in the order of a run that is replayed."""
        return isinstance(self.cut, OrderedCut) and self.cut.waits

    # ------------------------------------------------------------------ weights that workers set

    def initialise(self, payload: memoryview, session: int = 0) -> None:
        """Set version 0; a repeated call changes nothing.

        Args:
            payload: The weights, `float32[n + m]`.
            session: The session of the worker, which may repeat its call at any time: its connection may have broken
                before it had the reply, and others train meanwhile; 0 if it has none.

        Raises:
            InvalidRequest: The payload has another length than this shard's slice.
            JobConflict: The shard has been trained already.
        """
        if self.shard is not None and not self.void:
            if self.shard.version and not (session and session == self._initialiser):
                raise JobConflict(
                    f"initial weights must be set before the first update; version is {self.shard.version}."
                )
            return
        if len(payload) != 4 * self.size:
            raise InvalidRequest(
                f"the initial weights of shard {self.index} must be {self.size:,} float32; "
                f"received {len(payload):,} bytes. Check that both sides cut the model into as many shards."
            )
        if self.builder.recorded and (self.generation == 1 or self.calls.paused):
            self.calls.begin(self.builder.records_pulls(self.builder.settings))
        self._initialiser = session
        self.put(self.builder.initial_state(payload))
        if self.calls.on and self.builder.records_initial_weights:
            shard, facts = self.trained_shard(), pb.SnapshotInfo(initialisation=self.initialisation)
            buffer, _ = shard.pull()
            assert self.builder.slice is not None
            state = weights_state(buffer.array, self.builder.slice, facts, lambda: shard.release(buffer))
            self.outbox.append(Snapshot(0, state))

    def assign(self, header: pb.Request, payload: memoryview, worker: int = 0) -> None:
        """Replace weights of a script's job, while the optimizer's slots stay, or one of the slots.

        Args:
            header: The frame's header.
            payload: The frame's payload, `float32[n + m]`.
            worker: The worker that assigns them.

        Raises:
            InvalidRequest: The job is not a script's, the payload has another length than this shard's slice, or
                there is no such slot.
        """
        if not self.builder.takes_assignments:
            raise InvalidRequest("weights must be set once, before training; only a script's callbacks may set others.")
        check_length(payload, 4 * self.size, self.size)
        content = np.frombuffer(payload, np.float32)
        self.assigned += 1
        if header.slot:
            self.trained_shard().assign_slot(header.slot, content)
        else:
            self.trained_shard().assign(content, header.partial)
        self.calls.add(Call.ASSIGN, worker)

    def set_rates(self, tables: Sequence[pb.LearningRates]) -> None:
        """Set the learning rates of a script's optimizers; a replay waits until it is their turn."""
        self._rates.append(tables)
        self._apply_rates()

    def _apply_rates(self) -> None:
        while self._rates and self.calls.admits(Call.RATES):
            self.builder.set_rates(self._rates.popleft())
            self.calls.add(Call.RATES)

    def set_members(self, members: dict[int, pb.Member]) -> None:
        """Replace the members, which are given by session."""
        self.members = members

    def set_generation(self, generation: int) -> None:
        """Begin a generation; weights of an earlier one are void until a state is restored.

        Its initialisations count from 0: a coordinator that was started again does not know the number of earlier ones.
        """
        self.initialisation = 0
        self.generation, self.void = generation, self.void or self.shard is not None

    def void_weights(self, initialisation: int) -> None:
        """Void the initial weights that came before an initialisation, since their worker left half way."""
        self.initialisation, self.void = initialisation, self.shard is not None

    def put(self, state: ShardState) -> None:
        """Replace the whole state of the shard, which is rebuilt if its settings or its size have changed.

        Raises:
            ValueError: The state belongs to another optimizer, or has another size.
        """
        if self.shard is None or self.shard.size != self.size or self.builder.stale:
            self.shard = self.builder.build(self.records.add)
        put_state(self.shard, state, self.generation)
        self.waiters.recheck()  # clocks begin again, and may reach those at which waiting workers were last checked
        self.void = False
        if self.builder.state_rewinds_trace:
            self.records.go_back(state.facts.records)
        for member in self.members.values():
            self.join(self.shard, member, resting=False)
        self.emit(initialised=True, initialisation=self.initialisation)

    def join(self, shard: Shard, member: pb.Member, resting: bool) -> None:
        """Admit a member to the shard and record the call; in a replay it rests until the record has it join."""
        resting = resting or self.calls.drives
        shard.join(member.worker, member.incarnation, resting)
        self.calls.add(Call.JOIN_RESTING if resting else Call.JOIN, member.worker, member.incarnation)

    # ------------------------------------------------------------------ pushes and pulls

    def push(
        self, header: pb.Request, payload: memoryview | Sequence[bytes], owned: bool = True
    ) -> tuple[Result, bool]:
        """Apply a push; return its outcome so far and whether it is a duplicate.

        Args:
            header: The frame's header.
            payload: The frame's payload; must not change while this call lasts.
            owned: Whether the shard may keep a reference to the payload, because it will not be overwritten.

        Raises:
            InvalidRequest: The push is malformed, or for samples that the worker may not use now.
            UnknownWorker: The worker's session has ended.
            Fenced: The push is meant for an earlier generation of the shard.
            FutureVersion: The shard has not reached the push's base version.
        """
        shard = self.shard or self.trained_shard()
        known = shard.recorded(header.worker, header.incarnation, header.seq)
        if known is not None:
            self.metrics.duplicates += 1
            return known, True
        if header.generation != shard.generation:
            shard.check_generation(header.generation)
        assert self.builder.slice is not None
        if not isinstance(payload, memoryview) and not self.takes_parts(header):  # it has changed in the meantime
            payload = memoryview(b"".join(payload))
        part = self.builder.slice
        if header.tensors:
            part = Slice(0, shard.covered(header.tensors), part.state)
        push, gradient = decode_push(header, payload, part)
        if push.lease:
            self.ledger.check(push)
        begin = clock.perf_counter() if self._record_push_s else 0.0
        result = shard.accept(push, gradient, owned)
        if result.outcome == Outcome.BUFFERED:
            self.records.buffered(push)
        if self.calls.on:
            self.calls.add(Call.PUSH, push.worker, push.incarnation, push.seq)
        if self._record_push_s:
            self._record_push_s(clock.perf_counter() - begin)
        self.metrics.bytes_pushed += header.payload_bytes
        self.cut.newest[push.worker, push.incarnation] = push
        if push.lease:
            self.ledger.used(push)
        if self.cut.under_way:
            self.try_cut()
        self.waiters.release(shard)
        return result, False

    def pull(self, header: pb.Request, worker: int) -> HeldWeights:
        """Return the weights, or a slot of the optimizer, that a worker asks for, and the version; held once.

        Raises:
            InvalidRequest: There is no such pin or slot.
        """
        shard = self.trained_shard()
        if header.slot:
            return shard.pull_slot(header.slot)
        pulled = shard.pull(header.pin, worker)
        if self.calls.pulls and not header.pin:
            self.calls.add(Call.PULL, worker)
        return pulled

    def answer(self, shard: Shard, header: pb.Request) -> HeldWeights:
        """Return the weights for the reply to a push that was counted, and the version; held once."""
        if header.no_pull:
            return shard.pull()
        if self.calls.pulls:
            self.calls.add(Call.PULL, header.worker)
        return shard.answer(header.worker)

    # ------------------------------------------------------------------ what the coordinator learns

    def emit(self, **event: Any) -> None:
        """Append a `ShardEvent` with the given fields and the present generation to the outbox."""
        self.outbox.append(pb.ShardEvent(generation=self.generation, **event))

    def try_cut(self) -> None:
        """Take the state for a cut and admit all pushes again, if all pushes that belong to the cut are in."""
        number = self.cut.due(self.members.values())
        if number is None or self.shard is None:
            return
        assert self.builder.slice is not None
        elapsed_s = clock.monotonic() - self.records.start_s
        state = take_state(self.shard, self.builder.slice, elapsed_s, self.records.count)
        self.outbox.append(Snapshot(number, state))
        if self.cut.change is not None:
            self._change_settings(self.shard, self.cut.change)
        self.cut.end()

    def _change_settings(self, shard: Shard, change: pb.SettingsChange) -> None:
        """Change the mode, the compensation and the learning rate of the shard, and record that."""
        settings = settings_of(change.settings)
        learning_rate = self.builder.learning_rate_of(settings)
        shard.reconfigure(self.builder.consistency(settings), compensation_of(settings.staleness_policy), learning_rate)
        self.calls.add(Call.CHANGE, seq=change.number)
        self.calls.record_pulls(self.builder.records_pulls(settings))
        self.waiters.release(shard)

    def count(self) -> pb.ShardCounters:
        """Return the totals of this shard."""
        self.records.settle()
        return pb.ShardCounters(
            version=self.shard.version if self.shard else 0,
            dropped=self.metrics.dropped.total(),
            duplicates=self.metrics.duplicates,
            bytes_pushed=self.metrics.bytes_pushed,
            bytes_pulled=self.metrics.bytes_pulled,
            uncorrected=self.shard.uncorrected if self.shard else 0,
        )
