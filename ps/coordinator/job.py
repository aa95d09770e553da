"""The course of a job over its shards: phases, generations, the end. Pure: no gRPC, no files, no clock of its own."""

from __future__ import annotations

from collections.abc import Callable

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import Layout
from downpour.ps.config import ServerSettings
from downpour.ps.config_checks import warnings_of
from downpour.ps.coordinator.admission import lease_samples
from downpour.ps.coordinator.deadlines import JobDeadlines
from downpour.ps.coordinator.evaluations import Evaluations
from downpour.ps.coordinator.ledger import Ledger
from downpour.ps.coordinator.membership import Membership
from downpour.ps.coordinator.orphaned_leases import OrphanedLeases
from downpour.ps.coordinator.phase import OVER, Phase
from downpour.ps.coordinator.shard_table import ShardTable
from downpour.ps.coordinator.step_deadline import StepDeadlines


class Job:
    """Owns settings, membership, ledger, tasks and the end of the job; what workers ask is the coordinator's matter.

    Attributes:
        phase: What the job is doing.
        shards: Which of them are there.
        generation: Which life of the shards this is.
        departures: Workers that left and whose leases are not settled.
        tasks: Evaluations on loan.
        pace: How long workers may take for a step.
        patience: How long the job waits.
        evaluations: Results on the validation split, by epoch.
        test: Result on the test split; None before the end.
        step_s: That workers which have left trained for.
        exchange_s: Of that, in exchanges with the shards.
        notes: What a person should know, oldest first.
        facts: Of every worker's incarnation that ever was in: versions and settings that bits depend on.
        stopped_early: The validation loss had stopped falling.
        saved: The trained model has been uploaded.
    """

    def __init__(
        self,
        settings: ServerSettings,
        job: str,
        new_session: Callable[[], int],
        send: Callable[[pb.ShardCommand], None],
    ) -> None:
        """A job without workers.

        Args:
            settings: Of the job.
            job: Its name.
            new_session: Draws an unguessable number.
            send: Sends a command to every shard, now and joining later, in order.
        """
        self.settings, self.job = settings, job
        self.phase = Phase.WAITING
        self.membership = Membership(settings.session_s, new_session)
        self.layout: Layout | None = None
        self.data: pb.DatasetInfo | None = None
        self.ledger: Ledger | None = None
        self.shards = ShardTable(settings.shards)
        self.tasks = Evaluations(settings.epochs, settings.shards, send)
        self.evaluations: dict[int, pb.Evaluation] = {}
        self.test: pb.Evaluation | None = None
        self.notes: list[str] = warnings_of(settings)
        self.step_s = self.exchange_s = 0.0
        self.facts: dict[tuple[int, int], dict[str, str]] = {}
        self.started_s: float | None = None
        self.generation = 1
        self.departures = OrphanedLeases()
        self.pace = StepDeadlines(settings.session_s)
        self.patience = JobDeadlines(settings.reconnect_s, settings.idle_timeout_s, settings.drain_timeout_s)
        self.elapsed_s = 0.0  # of training, before the last start
        self.stopped_early = False
        self.saved = False
        self._resumed = False
        self._send = send
        self._initialiser: int | None = None
        self._first_warm_s: float | None = None
        self._advancing = self._again = False

    # ------------------------------------------------------------------ shards

    @property
    def open(self) -> bool:
        """Whether workers may register: all shards are there, and what a checkpoint says of earlier ones is known."""
        return self.shards.joined and self.phase != Phase.RECOVERING

    def shard_lost(self, shard: int, now: float) -> None:
        """A shard is gone: everybody stops until it is back, and then goes on from the last cut."""
        if self.phase in OVER or not self.shards.remove(shard):
            return
        if self.layout is None:
            return
        if self.phase == Phase.DRAINING:
            self.fail(f"shard {shard} was lost while the job was drained; its last checkpoint can be resumed")
            return
        self.notes.append(
            f"shard {shard} is gone: it is waited for {self.settings.reconnect_s:g} s, then all go on from the last cut"
        )
        self.begin_generation(self.generation + 1, now)

    def begin_generation(self, generation: int, now: float) -> None:
        """Ends every session and all that belongs to an earlier generation; `restore` or `start_over` must follow."""
        self.generation = generation
        if self.started_s is not None:
            self.elapsed_s, self.started_s = now - self.started_s, None
        self.phase, self.test, self.saved, self.patience.lost_s = Phase.RECOVERING, None, False, now
        self.membership.clear()
        self.departures.clear()
        self.pace.clear()
        self.tasks.clear()
        self.shards.forget_weights()
        self._initialiser = self._first_warm_s = None
        self._send(pb.ShardCommand(generation=generation, view=self.membership.view()))

    def agree(self, layout: Layout, data: pb.DatasetInfo) -> None:
        """Fixes layout and data, and a ledger of which nothing is used."""
        self.layout, self.data = layout, data
        samples = data.train_samples
        self.ledger = Ledger(samples, self.settings.epochs, lease_samples(self.settings, samples))
        self._send(pb.ShardCommand(layout=layout.to_proto()))

    def restored(self, closed_epochs: int, now: float) -> None:
        """Waits for the shards to hold the weights of a checkpoint; the ledger is that of the checkpoint."""
        self.tasks.clear(closed_epochs)
        self._resumed, self.patience.lost_s = True, None
        self.phase = Phase.INITIALISING
        self.advance(now)

    def start_over(self, now: float) -> None:
        """Begins again without a checkpoint."""
        if self.layout is not None and self.data is not None:
            self.agree(self.layout, self.data)
        self.tasks.clear(closed_epochs=0)
        self._resumed, self.patience.lost_s, self.elapsed_s = False, None, 0.0
        self.evaluations.clear()
        self.phase = Phase.INITIALISING if len(self.membership) else Phase.WAITING

    def shard_event(self, shard: int, event: pb.ShardEvent, now: float) -> None:
        """Takes what a shard reports of itself."""
        if event.HasField("departed"):
            self.departures.told(shard, event.departed)
        if event.view_seen:
            self.shards.seen(shard, min(event.view_seen, self.membership.number))
            if self.ledger is not None:
                self.departures.seen(shard, event.view_seen, self.ledger)
        if event.initialised:
            self.shards.has_weights(shard, event.initialisation)
            if self.shards.initialised and self.phase == Phase.INITIALISING:
                self.phase = Phase.WARMING
        if event.pinned:
            self.tasks.pinned(event.pinned, shard)
        self.advance(now)

    # ------------------------------------------------------------------ the way to the end

    @property
    def draining(self) -> bool:
        """Whether workers must finish no more than the batch that they have."""
        return self.phase in (Phase.DRAINING, *OVER)

    def drain(self, reason: str, now: float, asked: bool = True) -> None:
        """Hands out no more data; the weights so far are evaluated and saved.

        Args:
            reason: For a person.
            now: The time.
            asked: Somebody waits for the end: it must come within the drain timeout and without a new worker.
        """
        if self.phase in OVER:
            return
        if self.phase in (Phase.DRAINING, Phase.FINISHING):
            if asked and not self.patience.hurried:  # it is ending anyhow; from now on somebody waits for that
                self.patience.asked_s = now
            return
        self.notes.append(f"draining: {reason}")
        self.patience.asked_s = now if asked else None
        if self.phase == Phase.TRAINING and len(self.membership):
            self.phase = Phase.DRAINING
            self.tasks.drop_waiting()
            self.advance(now)
        elif self.started_s is None:
            self.notes.append("stopped before training began: there is nothing to save")
            self.phase = Phase.ENDED
        else:
            self.fail(reason)

    def fail(self, reason: str) -> None:
        """Ends the job without a result."""
        if self.phase not in OVER:
            self.notes.append(reason)
            self.phase = Phase.FAILED

    def tick(self, now: float) -> None:
        """What time alone brings about: expired sessions, the start."""
        for member in self.membership.expired(now):
            self.leave(member.worker, now, f"worker {member.worker} is silent: its samples are leased again")
        for worker, waited_s in self.pace.overdue(now):
            note = f"worker {worker} lives but has done nothing for {waited_s:.0f} s: its samples are leased again"
            self.leave(worker, now, note)
        self._check_progress(now)
        self.advance(now)

    def _check_progress(self, now: float) -> None:
        """Gives up when nobody can bring the job on."""
        if self.phase in OVER:
            return
        deserted = not len(self.membership)
        if self.saved and self.patience.suffices(now, deserted):
            self._note_cut(0)
            self.phase = Phase.ENDED
            return
        able = self.membership.trainers if self.phase == Phase.TRAINING else self.membership.members
        reason = self.patience.exhausted(now, deserted, bool(able), self.shards.missing)
        if reason:
            self.fail(reason)

    def advance(self, now: float) -> None:
        """Takes every step that has become possible; what a step brings about at once is seen to after it."""
        if self._advancing:
            self._again = True
            return
        self._advancing = self._again = True
        try:
            while self._again:
                self._again = False
                self._step(now)
        finally:
            self._advancing = False

    def _step(self, now: float) -> None:
        if self.phase == Phase.WARMING and self._may_start(now):
            self.phase = Phase.TRAINING
            self.started_s = now - self.elapsed_s
            for member in self.membership.members:
                member.resting = not member.warm or member.evaluator
            self._send(pb.ShardCommand(view=self.membership.view()))
        if self.ledger is None:
            return
        if self.phase == Phase.TRAINING:
            self.tasks.close_epochs(self.ledger, validate=self.data is not None and self.data.validation_samples > 0)
        over = self.ledger.finished if self.phase == Phase.TRAINING else self.phase == Phase.DRAINING
        if over and self.membership.all_idle_but(self.tasks.assigned):
            if len(self.membership) or self.phase == Phase.TRAINING:
                self._begin_finish()
            else:
                self.fail("no worker is left to save the model: the last checkpoint can be resumed")
        evaluating = self.tasks.under_way and not self.patience.hurried
        if self.phase == Phase.FINISHING and self.test is not None and not (evaluating and len(self.membership)):
            self.phase = Phase.ENDED
        self.tasks.collect()

    def _may_start(self, now: float) -> bool:
        warm = sum(member.warm for member in self.membership.trainers)
        late = self._first_warm_s is not None and now >= self._first_warm_s + self.settings.start_timeout_s
        return warm > 0 and (self._resumed or warm >= self.settings.workers or late)

    def _begin_finish(self) -> None:
        self.phase = Phase.FINISHING
        self._send(pb.ShardCommand(flush=True))
        assert self.ledger is not None
        self.tasks.finish(self.ledger.epoch)

    def leave(self, worker: int, now: float, note: str = "") -> None:
        """Lets a worker go: what it had on loan is lent again."""
        member = self.membership.leave(worker)
        if member is None:
            return
        if note:
            self.notes.append(note)
        self.pace.forget(worker)
        self.tasks.give_back(worker, self.patience.hurried)
        if self.ledger is not None:
            if self.settings.shards == 1:
                self.ledger.take_back(worker)
            else:
                view, shards = self.membership.number, self.settings.shards
                self.departures.begin(worker, member.incarnation, view, self.ledger, shards)
        command = pb.ShardCommand(view=self.membership.view())
        if self._initialiser == worker:
            self._initialiser = None
            if self.phase == Phase.INITIALISING and not self._resumed:
                command.initialisation = self.shards.void()  # some may have its weights: another's must not mix in
        self._send(command)
        self.advance(now)

    def _note_cut(self, samples: int) -> None:
        """Says of how many samples the last result is, where it is not of all."""
        of = self.data.test_samples if self.data else 0
        if samples < of:
            what = f"evaluated on the first {samples:,} of {of:,} test samples" if samples else "not evaluated"
            self.notes.append(f"the model is saved and {what}: there was no time for more")
