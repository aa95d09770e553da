"""A shard in its process: builds it when layout and weights are known, and keeps those who wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.codec import check_length
from downpour.protos.errors import InvalidRequest, JobConflict, UnknownWorker
from downpour.protos.layout import Layout, Slice
from downpour.ps.config import JobSettings
from downpour.ps.core.apply import UpdateOptions
from downpour.ps.core.buffers import Arena, Pool
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.hyperparameters import resolve
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Push, Result
from downpour.ps.core.rate_table import RateTable
from downpour.ps.core.schedules import schedule_of
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import compensation_of, needs_old_weights
from downpour.ps.data_plane.cut import ShardCut
from downpour.ps.data_plane.decode_push import gradient_of, limit_bytes, push_of
from downpour.ps.data_plane.snapshot import Assembly, ShardState, initial_state, put_state, take_state, weights_state
from downpour.ps.data_plane.waiters import Pulled, Waiters
from downpour.ps.storage.checkpoint_file import SLOT, STATE, TRAINED
from downpour.ps.trace.call_log import Call, CallLog, is_recorded
from downpour.ps.trace.metrics import Metrics
from downpour.ps.trace.outcome_log import OutcomeLog


class ShardRuntime:
    """One shard, its members, its metrics, its trace and its waiters; all on one event loop.

    Attributes:
        shard: The weights; None until they are initialised.
        slice: What this shard owns; None until the layout is known.
        records: Of the trace.
        calls: On the shard, where the job is recorded.
        shares: Whether the weights are to be kept where workers on this host can map them.
        arena: Memory of the weights that workers on this host can map; None: on the heap, for nobody maps them.
        left: Told of a session that has ended.
        generation: Which life the shard is in; what belongs to an earlier one is void.
        timed: Receives the seconds that each push took; None: they are not measured.
        took: Receives the state that the shard takes for a cut, with the cut's number.
        began: Receives the state at version 0, where the job is recorded.
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
        self.transports: set[str] = set()  # by which workers have reached it
        self.records = OutcomeLog(self.metrics)
        self.calls = CallLog()
        self.shares = False
        self.arena: Arena | None = None
        self.left: Callable[[int], None] = lambda session: None
        self.draining = False
        self.generation = 1
        self.timed: Callable[[float], None] | None = None
        self.took: Callable[[int, ShardState], None] = lambda number, state: state.release()
        self.began: Callable[[ShardState], None] = lambda state: state.release()
        self.stopped = asyncio.Event()
        self._members: dict[int, pb.Member] = {}
        self._gates = Waiters()
        self._cutting = ShardCut()
        self._assembly: Assembly | None = None
        self._void = False  # the shard's state is of an earlier generation, or initialisation
        self._initialisation = 0
        self._refit = False  # it was made for other settings
        self._rates: RateTable | None = None
        self._recorded = False

    # ------------------------------------------------------------------ commands of the coordinator

    def command(self, command: pb.ShardCommand) -> None:
        """Does what the coordinator says and reports that it is done."""
        if command.settings:
            self.settings = JobSettings.model_validate_json(command.settings)
            self._refit = self.shard is not None
        if command.HasField("learning_rates"):
            self._set_rates(command.learning_rates)
            if command.settings:
                self.records.settle()
                self.metrics.begin_fit()
        if command.generation:
            self._begin_generation(command.generation)
        if command.HasField("layout"):
            assert self.settings is not None
            layout = Layout.from_proto(command.layout)
            self.slice = layout.cut(self.settings.shards)[self.index]
            self._recorded = is_recorded(self.settings, layout.size)
            if self.shares and self.arena is not None and self._refit:
                self.arena.close()
                self.arena = None
            if self.shares and self.arena is None:
                self.arena = Arena(self.slice.size)
        if command.HasField("view"):
            self._adopt(command.view)
        if command.initialisation > self._initialisation:  # after the view: its worker is no member any more
            self._initialisation, self._void = command.initialisation, self.shard is not None
        if command.flush and self.shard:
            self.shard.flush()
            self.calls.add(Call.FLUSH)
            self._gates.look(self.shard)
        if command.pin and self.shard:
            self.shard.pin(command.pin)
            self._say(pinned=command.pin)
        if command.unpin and self.shard:
            self.shard.unpin(command.unpin)
        if command.hold:
            self._say(held=self._cutting.hold(command.hold))
        if command.HasField("cut"):
            self._cutting.aim(command.cut)
            self._try_cut()
        if command.HasField("restore"):
            self._assemble(command.restore)
        if command.stop:
            self.stopped.set()

    def _adopt(self, view: pb.View) -> None:
        """Believes the newest view: who is not in it leaves."""
        new = {member.session: member for member in view.members}
        for session, member in self._members.items():
            if session not in new and self.shard:
                self.shard.leave(member.worker)
                self.calls.add(Call.LEAVE, member.worker)
            if session not in new:
                self._depart(member)
        for session, member in new.items():
            if self.shard and session not in self._members:
                self._join(self.shard, member, member.resting)
            elif self.shard and member.resting and not self._members[session].resting:
                self.shard.rest(member.worker)
                self.calls.add(Call.REST, member.worker)
            elif self.shard and not member.resting and member.worker not in self.shard.consistency.clocks:
                self.shard.resume(member.worker)
                self.calls.add(Call.RESUME, member.worker)
        self._members = new
        self._try_cut()
        self._gates.look(self.shard)
        self._say(view_seen=view.number)

    def _join(self, shard: Shard, member: pb.Member, resting: bool) -> None:
        shard.join(member.worker, member.incarnation, resting)
        self.calls.add(Call.JOIN_RESTING if resting else Call.JOIN, member.worker, member.incarnation)

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

    @property
    def size(self) -> int:
        """Elements that this shard owns; 0 until the layout is known."""
        return self.slice.size if self.slice else 0

    @property
    def region_bytes(self) -> int:
        """The most payload that any frame of a worker may have."""
        codec = self.settings.codec if self.settings else "float32"
        return max(self.limit_bytes(pb.Request(kind=kind, codec=codec)) for kind in (pb.INIT, pb.PUSH_PULL))

    def limit_bytes(self, header: pb.Request) -> int:
        """The most payload that a frame with such a header may have."""
        return limit_bytes(header, self.slice)

    def initialise(self, payload: memoryview) -> None:
        """Sets version 0; a repetition before the first update changes nothing.

        Raises:
            InvalidRequest: The payload has another length than this shard's slice.
            JobConflict: The shard has been trained already.
        """
        if self.shard is not None and not self._void:
            if self.shard.version:
                raise JobConflict(f"this shard is at version {self.shard.version}: its weights are not set again.")
            return
        assert self.slice is not None
        if len(payload) != 4 * self.slice.size:
            raise InvalidRequest(
                f"the initial weights of shard {self.index} must be {self.slice.size:,} float32; "
                f"received {len(payload):,} bytes. Check that both sides cut the model into as many shards."
            )
        if self._recorded and self.generation == 1:
            self.calls.begin(needs_old_weights(self.settings.staleness) if self.settings else False)
        self._put(initial_state(np.frombuffer(payload, np.float32), self.slice, self._optimizer().state()))
        if self.calls.on:
            buffer, _ = self.trained_shard().pull()
            shard, facts = self.trained_shard(), pb.SnapshotInfo(initialisation=self._initialisation)
            self.began(weights_state(buffer.array, self.slice, facts, lambda: shard.release(buffer)))

    def assign(self, header: pb.Request, payload: memoryview) -> None:
        """Replaces the weights of a script's job, while the optimizer's slots stay, or one of these.

        Raises:
            InvalidRequest: The job is no script's, the payload has another length than this shard's slice, or there
                is no such slot.
        """
        if self._rates is None:
            raise InvalidRequest("weights must be set once, before training; only a script's callbacks set others.")
        check_length(payload, 4 * self.size, self.size)
        content = np.frombuffer(payload, np.float32)
        if header.slot:
            self.trained_shard().assign_slot(header.slot, content, header.step)
        else:
            self.trained_shard().assign(content)

    def pull(self, header: pb.Request, worker: int) -> Pulled:
        """What a worker asks for, weights or a slot of the optimizer, and the version; held once.

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

    def _set_rates(self, rates: pb.LearningRates) -> None:
        """The learning rate by version, from now on."""
        if self._rates is None or self._refit:
            assert self.settings is not None
            base = resolve(self.settings.optimizer, self.settings.hyper)["learning_rate"]
            self._rates = RateTable(base, rates)
        else:
            self._rates.tell(rates)

    def trained_shard(self) -> Shard:
        """The shard.

        Raises:
            InvalidRequest: It has no weights yet.
        """
        if self.shard is None:
            raise InvalidRequest("weights must be initialised before they are pulled or pushed to: ask Ready first.")
        return self.shard

    def takes_parts(self, header: pb.Request) -> bool:
        """Whether the payload of such a request may come in several messages that are not put together."""
        plain = header.kind == pb.PUSH_PULL and header.codec == "float32"
        return plain and self.shard is not None and self.shard.reads_once

    def push(
        self, header: pb.Request, payload: memoryview | Sequence[bytes], owned: bool = True
    ) -> tuple[Result, bool]:
        """Takes a push; returns its outcome so far and whether it is a repetition.

        Args:
            header: What the worker says of it.
            payload: Must not change while this call lasts.
            owned: Whether it may be kept, because nobody will write to it afterwards.

        Raises:
            InvalidRequest: It is malformed, or for samples that the worker may not use now.
            UnknownWorker: Its session has ended.
            Fenced: It is meant for an earlier life of the shard.
            FutureVersion: Its base version has not been reached.
        """
        shard = self.shard or self.trained_shard()
        known = shard.recorded(header.worker, header.incarnation, header.seq)
        if known is not None:
            self.metrics.duplicates += 1
            return known, True
        if header.generation != shard.generation:
            shard.check_generation(header.generation)
        assert self.slice is not None
        if not isinstance(payload, memoryview) and not self.takes_parts(header):  # it has changed meanwhile
            payload = memoryview(b"".join(payload))
        push, gradient = push_of(header), gradient_of(header, payload, self.slice)
        if push.lease:
            self._admit(push)
        begin = time.perf_counter() if self.timed else 0.0
        result = shard.accept(push, gradient, owned)
        if self.calls.on:
            self.calls.add(Call.PUSH, push.worker, push.incarnation, push.seq)
        if self.timed:
            self.timed(time.perf_counter() - begin)
        self.metrics.bytes_pushed += header.payload_bytes
        self._cutting.newest[push.worker, push.incarnation] = push
        if push.lease:
            self._accepted(push)
        if self._cutting.under_way:
            self._try_cut()
        self._gates.look(shard)
        return result, False

    # ------------------------------------------------------------------ cuts and generations

    def held(self, header: pb.Request) -> asyncio.Future[None] | None:
        """What a push must wait for, unread, before it is taken; None: it may be taken now."""
        return self._cutting.held(header)

    def restore(self, state: ShardState) -> None:
        """Returns to a state, as the generation that has begun; nobody remembers the pushes since.

        Raises:
            ValueError: It is another optimizer's, or of another size.
        """
        self.records.settle()
        self.records.start_s = time.monotonic() - state.facts.time_s
        self._put(state)

    def state_sizes(self) -> dict[str, int]:
        """Elements of the vectors of this shard's state, by name."""
        assert self.settings is not None and self.slice is not None
        slots = Optimizer(self.settings.optimizer, self.settings.hyper, 1).slots
        sizes = {TRAINED: self.slice.trained, **{SLOT + name: self.slice.trained for name in slots}}
        return {**sizes, STATE: self.slice.state} if self.slice.state else sizes

    def _put(self, state: ShardState) -> None:
        if self.shard is None or self.shard.size != self.size or self._refit:
            self.shard, self._refit = self._new_shard(), False
        put_state(self.shard, state, self.generation)
        self._void = False
        if self._rates is None:  # a script's next call of `fit` undoes nothing of the last one
            self.records.go_back(state.facts.records)
        for member in self._members.values():
            self._join(self.shard, member, resting=False)
        self._say(initialised=True, initialisation=self._initialisation)

    def _optimizer(self) -> Optimizer:
        assert self.settings is not None and self.slice is not None
        return Optimizer(self.settings.optimizer, self.settings.hyper, self.slice.trained)

    def _new_shard(self) -> Shard:
        assert self.settings is not None
        settings = self.settings
        return Shard(
            np.zeros(self.size, np.float32),
            self._optimizer(),
            consistency_of(settings.mode),
            compensation_of(settings.staleness),
            self.records.add,
            pool=Pool(self.size, self.arena.allocate if self.arena else None),
            options=UpdateOptions(
                self._rates or schedule_of(settings.schedule, settings.warm_up),
                settings.momentum_correction,
                settings.version_memory << 20,
            ),
        )

    def _say(self, **event: Any) -> None:
        self._emit(pb.ShardEvent(generation=self.generation, **event))

    def _begin_generation(self, generation: int) -> None:
        """Everything of an earlier generation ends: sessions, a cut under way, weights that nobody restores."""
        for session, member in self._members.items():
            self.left(session)
            if self.shard is not None:
                self.shard.leave(member.worker)
        self._members = {}
        self._gates.forget()
        self._gates.look(self.shard)
        self._cutting.clear()
        self._assembly = None
        if self._rates is None:
            self.records.drop()
        self.calls.end()
        self.generation = generation
        if self.shard is not None:
            self._void = True

    def _depart(self, member: pb.Member) -> None:
        self._say(departed=self._cutting.departed(member))
        self.left(member.session)

    def _try_cut(self) -> None:
        """Takes the state and admits pushes again, once all that belongs to the cut is there."""
        number = self._cutting.due(self._members.values())
        if number is None or self.shard is None:
            return
        assert self.slice is not None
        elapsed_s = time.monotonic() - self.records.start_s
        self.took(number, take_state(self.shard, self.slice, elapsed_s, self.records.count))
        self._cutting.end()

    def _assemble(self, part: pb.SnapshotPart) -> None:
        if self._assembly is None:
            sizes = self.state_sizes().items()
            self._assembly = Assembly({name: np.empty(size, np.float32) for name, size in sizes})
        state = self._assembly.feed(part)
        if state is not None:
            self._assembly = None
            self.restore(state)

    # ------------------------------------------------------------------ gates

    @property
    def waiting_workers(self) -> list[int]:
        """Workers whose gate is closed."""
        return self._gates.closed

    def gate(self, worker: int, fetch: bool = True) -> Pulled | asyncio.Future[Pulled]:
        """The weights for a worker whose push was counted, held once: now, or when it may proceed.

        Args:
            worker: Whose gate it is.
            fetch: Whether it will compute from them.
        """
        shard = self.shard or self.trained_shard()
        if shard.may_proceed(worker):
            return self._answer(shard, worker) if fetch else shard.pull()
        return self._gates.enter(worker, lambda: self._answer(shard, worker) if fetch else shard.pull())

    def _answer(self, shard: Shard, worker: int) -> Pulled:
        if self.calls.pulls:
            self.calls.add(Call.PULL, worker)
        return shard.answer(worker)

    def count(self) -> pb.ShardCounters:
        """Totals for the coordinator."""
        self.records.settle()
        return pb.ShardCounters(
            version=self.shard.version if self.shard else 0,
            dropped=self.metrics.dropped.total(),
            duplicates=self.metrics.duplicates,
            bytes_pushed=self.metrics.bytes_pushed,
            bytes_pulled=self.metrics.bytes_pulled,
        )
