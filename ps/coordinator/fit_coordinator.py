"""The coordinator of a user's script: its workers bring model, optimizer and data, and meet after every epoch. Pure.

Every call of `fit` is a stage: the first worker to come fixes layout and optimizer, worker 0 sets the weights, and
when all have taken their leave the next stage may begin with others. A stage is one generation of the shards.
"""

from __future__ import annotations

from collections.abc import Callable

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict, LayoutMismatch, Unsupported
from downpour.protos.layout import Layout
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.admission import check_frozen
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.epoch_barrier import EpochBarrier
from downpour.ps.coordinator.fit_optimizer import with_optimizer
from downpour.ps.coordinator.ledger import EpochLedger
from downpour.ps.coordinator.membership import Member
from downpour.ps.coordinator.phase import OVER, Phase
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.rate_table import check_rates

LEADER = 0  # the worker whose callbacks run


class ScriptCoordinator(Coordinator):
    """A coordinator without a ledger.

    Attributes:
        stage: Which call of `fit` the job is at, from 1; 0 before the first.
        decisions: Of the present stage, one for each epoch that is behind it.
        decided: Epochs of all stages that are behind.
    """

    def __init__(
        self,
        settings: ServerSettings,
        job: str,
        new_session: Callable[[], int],
        send: Callable[[pb.ShardCommand], None],
    ) -> None:
        """As a coordinator.

        Raises:
            Unsupported: In that mode workers do not push gradients.
        """
        super().__init__(settings, job, new_session, send)
        if consistency_of(settings.mode).payload != "gradient" or settings.push_every > 1:
            raise Unsupported(
                f"a script's workers push every gradient; received --mode {settings.mode}. Use async, bsp, ssp or "
                "another mode of gradients."
            )
        self.stage = self.decided = 0
        self.decisions: list[pb.Decision] = []
        self._past: dict[int, list[pb.Decision]] = {}
        self._over = True
        self._meeting, self._farewell = EpochBarrier(), EpochBarrier()
        self._pin_acks: set[int] = set()
        self._stop_asked = self._asked_to_drain = False
        self._leader_lost_s: float | None = None

    # ------------------------------------------------------------------ stages

    def may_register(self, request: pb.RegisterRequest) -> bool:
        """Whether a worker need not wait for the others to leave the stage before."""
        return request.fit_call <= self.stage or not len(self.membership)

    def past(self, request: pb.RegisterRequest) -> list[pb.Decision] | None:
        """The decisions of a stage that is over, if it is that one the worker comes for."""
        if request.fit_call == self.stage and self._over:
            return self.decisions
        return self._past.get(request.fit_call)

    def register(self, request: pb.RegisterRequest, now: float) -> Member:
        """Admits a worker to its stage, which the first one begins.

        Raises:
            Unsupported: The worker is none of a script, or no server can carry out its optimizer.
            JobConflict: It skipped a stage.
            DownpourError: As for any job.
        """
        if not request.fit_call or not request.HasField("optimizer"):
            raise Unsupported(
                "this server works for a script: start its workers with `downpour run` or downpour.worker.fit."
            )
        if request.fit_call > self.stage + 1 or (request.fit_call < self.stage):
            raise JobConflict(
                f"a worker must come for call {self.stage} or {self.stage + 1} of fit; received call "
                f"{request.fit_call}. Run the same script everywhere."
            )
        if request.fit_call == self.stage + 1 and self.phase not in OVER:
            self._begin_stage(request, now)
        elif request.optimizer.name != self.settings.optimizer:
            raise JobConflict(
                f"all workers must bring the same optimizer, {self.settings.optimizer}; received "
                f"{request.optimizer.name}. Run the same script everywhere."
            )
        member = super().register(request, now)
        if member.worker == LEADER:
            self._leader_lost_s = None
        return member

    def _begin_stage(self, request: pb.RegisterRequest, now: float) -> None:
        settings = with_optimizer(self.settings, request.optimizer)
        Layout.from_proto(request.layout).cut(settings.shards)
        check_rates(request.optimizer.learning_rates)
        if self.stage:
            self._past[self.stage] = self.decisions
            self.begin_generation(self.generation + 1, now)
        self.stage, self.settings = request.fit_call, settings
        self._over, self.patience.lost_s, self._resumed, self._stop_asked = False, None, False, False
        self.decisions = []
        self._meeting, self._farewell = EpochBarrier(), EpochBarrier()
        self.layout, self.data = None, None
        self.phase, self.started_s = Phase.WAITING, None
        self._initialiser = LEADER
        self._send(
            pb.ShardCommand(settings=settings.model_dump_json(), learning_rates=request.optimizer.learning_rates)
        )

    def agree(self, layout: Layout, data: pb.DatasetInfo) -> None:
        """Fixes the layout; the workers share the samples among themselves, unless they want them on loan."""
        self.layout, self.data = layout, data
        self._open_epoch()
        self._send(pb.ShardCommand(layout=layout.to_proto()))

    def _check_layout(self, layout: Layout) -> None:
        """Names may differ: Keras numbers layers, and worker 0's callbacks may have built some."""
        if self.layout is None:
            super()._check_layout(layout)
        elif not self.layout.fits(layout):
            raise LayoutMismatch(
                f"a model must have the same weights on all workers: {self.layout.difference(layout)}. Build it from "
                "the same data everywhere, with a seed where it is drawn or shuffled."
            )

    def _check_data(self, data: pb.DatasetInfo) -> None:
        check_frozen(data, self.data)
        super()._check_data(data)

    def set_rates(self, request: pb.SetLearningRatesRequest, now: float) -> None:
        """The learning rate of the updates to come.

        Raises:
            InvalidRequest: It does not come from worker 0, or is no table.
        """
        member = self._alive(request.session, now)
        if member.worker != LEADER:
            raise InvalidRequest(f"worker {LEADER} must say the learning rate; received it from {member.worker}.")
        check_rates(request.rates)
        self._send(pb.ShardCommand(learning_rates=request.rates))

    # ------------------------------------------------------------------ samples on loan

    def _open_epoch(self) -> None:
        assert self.data is not None
        loan = self.data.lease_samples
        self.ledger = EpochLedger(len(self.decisions), self.data.train_samples, loan) if loan else None
        if self.ledger is not None:
            self.ledger.lease(LEADER)  # kept for worker 0, whose metrics must have seen a batch
            leader = self.membership.get(LEADER)
            if leader is not None:
                leader.idle = False

    def next_task(self, session: int, now: float) -> pb.Task:
        """The next samples of the epoch for a worker that has used, or gives up, what it had.

        Raises:
            InvalidRequest: There is nothing on loan here.
        """
        member = self._alive(session, now)
        if self.ledger is None:
            raise InvalidRequest("samples are on loan only where fit was given a LeasedDataset.")
        if not member.idle:
            member.idle = True
            self.ledger.take_back(member.worker)
        if self.draining or self._stop_asked or self.ledger.finished:
            return pb.Task(kind=pb.END)
        lease = self.ledger.lease(member.worker)
        if lease is None:
            self._rest(member)
            return pb.Task(kind=pb.WAIT)
        member.idle = False
        self._rest(member, False)
        epoch = len(self.decisions)
        return pb.Task(kind=pb.TRAIN, lease=lease.number, epoch=epoch, start=lease.start, stop=lease.stop)

    def used(self, worker: int, lease: int, epoch: int, start: int, stop: int, now: float) -> None:
        """Marks samples as used."""
        assert self.ledger is not None
        self.ledger.use(lease, stop)

    def _step(self, now: float) -> None:
        """The ledger is of one epoch: its end is not the job's."""
        ledger, self.ledger = self.ledger, None
        super()._step(now)
        self.ledger = ledger

    # ------------------------------------------------------------------ meetings

    def meet(self, request: pb.BarrierRequest, now: float) -> pb.BarrierReply:
        """A worker is at the end of an epoch, or of `fit`.

        Raises:
            InvalidRequest: It is ahead of the others.
            JobConflict: The job has ended.
        """
        if self.phase in OVER:
            raise JobConflict(f"the job has {self.phase}: {self.notes[-1] if self.notes else 'no reason given'}")
        member, epoch = self._alive(request.session, now), len(self.decisions)
        if not request.end_of_fit and request.epoch < epoch:
            return pb.BarrierReply(complete=True, decision=self.decisions[request.epoch])
        if not request.end_of_fit and request.epoch > epoch:
            raise InvalidRequest(f"the workers meet for epoch {epoch}; received {request.epoch}. Take part in each.")
        meeting = self._farewell if request.end_of_fit else self._meeting
        meeting.arrive(member.worker, request.values)
        self._stop_asked |= request.stop
        self._rest(member)
        self._close_meeting()
        if request.HasField("decision") and meeting.sums is not None and member.worker == LEADER:
            self._decide(meeting, request.decision)
        pinned = self._pin_acks >= set(self.shards)
        return pb.BarrierReply(
            complete=meeting.sums is not None and pinned,
            sums=meeting.sums or (),
            pin=self._pin_number,
            decision=meeting.decision,
        )

    @property
    def _pin_number(self) -> int:
        return len(self.decisions) + 1

    def _close_meeting(self) -> None:
        live = [member.worker for member in self.membership.members]
        for meeting in (self._meeting, self._farewell):
            if meeting.close(live):
                self._pin_acks = set()
                self._send(pb.ShardCommand(flush=True))
                self._send(pb.ShardCommand(pin=self._pin_number))

    def _decide(self, meeting: EpochBarrier, decision: pb.Decision) -> None:
        meeting.decision = decision
        self._send(pb.ShardCommand(unpin=self._pin_number))
        if meeting is self._farewell:
            self._over = True
            return
        self.decisions.append(decision)
        self.decided += 1
        self._meeting, self._stop_asked = EpochBarrier(), False
        self._open_epoch()
        for member in self.membership.members:
            member.resting = not member.warm
        self._send(pb.ShardCommand(view=self.membership.view()))

    def leads(self, session: int) -> bool:
        """Whether it is worker 0's."""
        leader = self.membership.get(LEADER)
        return leader is not None and leader.session == session

    def heartbeat(self, session: int, now: float) -> pb.HeartbeatReply:
        """Renews a session; says whether a callback of another worker, or a person, wants training to stop."""
        return pb.HeartbeatReply(drain=super().heartbeat(session, now).drain or self._stop_asked)

    def shard_event(self, shard: int, event: pb.ShardEvent, now: float) -> None:
        """Takes what a shard reports of itself."""
        if event.pinned == self._pin_number:
            self._pin_acks.add(shard)
        without = pb.ShardEvent()
        without.CopyFrom(event)
        without.pinned = 0
        super().shard_event(shard, without, now)

    # ------------------------------------------------------------------ ends

    @property
    def draining(self) -> bool:
        """Whether `fit` is to end with the batch that it has."""
        return self._asked_to_drain or self.phase in OVER

    def drain(self, reason: str, now: float, asked: bool = True) -> None:
        """Ends `fit` early, and the job when no worker is in it."""
        if self.phase in OVER:
            return
        if len(self.membership):
            if not self._asked_to_drain:
                self.notes.append(f"draining: {reason}")
            self._asked_to_drain = True
        else:
            self.phase = Phase.ENDED

    def leave(self, worker: int, now: float, note: str = "") -> None:
        """Lets a worker go; nobody waits for it any more."""
        here = self.membership.get(worker) is not None
        super().leave(worker, now, note)
        if here and worker == LEADER and not self._over:
            self._leader_lost_s = now
        self._close_meeting()

    def tick(self, now: float) -> None:
        """What time alone brings about."""
        super().tick(now)
        if self._leader_lost_s is not None and now > self._leader_lost_s + self.settings.reconnect_s:
            wait_s = self.settings.reconnect_s
            self.fail(f"worker {LEADER}, which decides for all, is gone and was not back within {wait_s:g} s")

    def shard_lost(self, shard: int, now: float) -> None:
        """A script cannot go on without its servers."""
        if self.shards.remove(shard) and self.phase not in OVER:
            self.fail(f"shard {shard} is gone; the state of a script's job is not kept: start it again")
