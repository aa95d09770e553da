"""The job: phases, tasks and membership over the shards. Pure: no gRPC, no files, no clock of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from enum import StrEnum

from protos import parameter_server_pb2 as pb
from protos.channel import PROTOCOL
from protos.errors import InvalidRequest, JobConflict, LayoutMismatch, TooLarge, Unsupported
from protos.layout import Layout
from ps.advice import warnings_of
from ps.config import ServerSettings
from ps.departures import Departures
from ps.ledger import Ledger
from ps.membership import Member, Membership
from ps.pace import Pace

LEASES_PER_WORKER = 16  # of an epoch: small enough that the last ones end together
DOUBT_S = 2.0
DRAIN_S = 7.0  # from the request to end until a job whose model nobody has saved has failed
EVALUATE_S, SAVED_S = 4.0, 5.5  # until evaluations are cut short; until a job whose model is saved ends without them
MOST_FACTS, MOST_FACT_CHARACTERS = 50, 8_000  # of a worker's environment
MOST_LIVES = 10_000  # of which facts are kept
LARGEST_LAYOUT = 1 << 31  # weights: 8 GiB


class Phase(StrEnum):
    """What a job is doing."""

    WAITING = "waiting"  # for a first worker
    RECOVERING = "recovering"  # for a shard to come back, or for the weights of a checkpoint
    INITIALISING = "initialising"
    WARMING = "warming"
    TRAINING = "training"
    DRAINING = "draining"  # no more leases: save what there is
    FINISHING = "finishing"  # the last evaluation
    ENDED = "ended"
    FAILED = "failed"


OVER = (Phase.ENDED, Phase.FAILED)
BEFORE_TRAINING = (Phase.WAITING, Phase.RECOVERING, Phase.INITIALISING, Phase.WARMING)


class Coordinator:
    """Owns settings, membership, ledger, tasks and the end of the job.

    Attributes:
        phase: What the job is doing.
        generation: Which life of the shards this is.
        departures: Workers that left and whose leases are not settled.
        pace: How long workers may take for a step.
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
        self.data: pb.Data | None = None
        self.ledger: Ledger | None = None
        self.shards: dict[int, pb.ShardAddress] = {}
        self.views_seen: dict[int, int] = {}
        self.evaluations: dict[int, pb.Evaluation] = {}
        self.test: pb.Evaluation | None = None
        self.notes: list[str] = warnings_of(settings)
        self.step_s = self.exchange_s = 0.0
        self.facts: dict[tuple[int, int], dict[str, str]] = {}
        self.started_s: float | None = None
        self.generation = 1
        self.departures = Departures()
        self.pace = Pace(settings.session_s)
        self.elapsed_s = 0.0  # of training, before the last start
        self.stopped_early = False
        self.saved = False
        self._resumed = False
        self._deserted_s: float | None = None
        self._lost_s: float | None = None
        self._drained_s: float | None = None
        self._send = send
        self._initialiser: int | None = None
        self._initialised: set[int] = set()
        self._initialisation = 0  # how many were given up half way
        self._first_warm_s: float | None = None
        self._pinned: dict[int, set[int]] = {}
        self._tasks: deque[pb.Task] = deque()
        self._assigned: dict[int, pb.Task] = {}
        self._closed_epochs = 0
        self._advancing = self._again = False

    # ------------------------------------------------------------------ shards

    @property
    def shards_joined(self) -> bool:
        """Whether every shard has joined."""
        return len(self.shards) == self.settings.shards

    @property
    def upload_limit_bytes(self) -> int:
        """The most that a trained model may have: its weights as they are saved, and room for what describes them."""
        return 16 * (self.layout.size if self.layout else 0) + (64 << 20)

    @property
    def open(self) -> bool:
        """Whether workers may register: all shards are there, and what a checkpoint says of earlier ones is known."""
        return self.shards_joined and self.phase != Phase.RECOVERING

    @property
    def addresses(self) -> list[pb.ShardAddress]:
        """Where the shards are, and which life they are in."""
        found = []
        for shard in sorted(self.shards):
            address = pb.ShardAddress()
            address.CopyFrom(self.shards[shard])
            address.generation = self.generation
            found.append(address)
        return found

    def shard_joined(self, address: pb.ShardAddress) -> None:
        """Takes a shard in.

        Raises:
            InvalidRequest: Its number is not one of this job's.
            JobConflict: That shard is there already.
        """
        if not address.shard < self.settings.shards:
            raise InvalidRequest(f"a shard's number must be below {self.settings.shards}; received {address.shard}.")
        if address.shard in self.shards:
            raise JobConflict(
                f"shard {address.shard} is at {self.shards[address.shard].address} already: start another number."
            )
        self.shards[address.shard] = address

    def shard_lost(self, shard: int, now: float) -> None:
        """A shard is gone: everybody stops until it is back, and then goes on from the last cut."""
        if self.phase in OVER or self.shards.pop(shard, None) is None:
            return
        self.views_seen.pop(shard, None)
        self._initialised.discard(shard)
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
        self.phase, self.test, self.saved, self._lost_s = Phase.RECOVERING, None, False, now
        self.membership.clear()
        self.departures.clear()
        self.pace.clear()
        for waiting in (self._tasks, self._assigned, self._pinned, self._initialised):
            waiting.clear()
        self._initialiser = self._first_warm_s = None
        self._send(pb.ShardCommand(generation=generation, view=self.membership.view()))

    def agree(self, layout: Layout, data: pb.Data) -> None:
        """Fixes layout and data, and a ledger of which nothing is used."""
        self.layout, self.data = layout, data
        samples = data.train_samples
        self.ledger = Ledger(samples, self.settings.epochs, self._lease_samples(samples))
        self._send(pb.ShardCommand(layout=layout.to_proto()))

    def restored(self, closed_epochs: int, now: float) -> None:
        """Waits for the shards to hold the weights of a checkpoint; the ledger is that of the checkpoint."""
        self._closed_epochs, self._resumed, self._lost_s = closed_epochs, True, None
        self.phase = Phase.INITIALISING
        self.advance(now)

    def start_over(self, now: float) -> None:
        """Begins again without a checkpoint."""
        if self.layout is not None and self.data is not None:
            self.agree(self.layout, self.data)
        self._closed_epochs, self._resumed, self._lost_s, self.elapsed_s = 0, False, None, 0.0
        self.evaluations.clear()
        self.phase = Phase.INITIALISING if len(self.membership) else Phase.WAITING

    @property
    def closed_epochs(self) -> int:
        """Epochs whose weights have been pinned to be evaluated, or have no need of it."""
        waiting = [task.epoch for task in (*self._tasks, *self._assigned.values()) if task.kind == pb.VALIDATE]
        return min([self._closed_epochs, *waiting, *(pin - 1 for pin in self._pinned if pin <= self.settings.epochs)])

    @property
    def initialised(self) -> bool:
        """Whether every shard has weights."""
        return len(self._initialised) == self.settings.shards

    def shard_event(self, shard: int, event: pb.ShardEvent, now: float) -> None:
        """Takes what a shard reports of itself."""
        if event.HasField("departed"):
            self.departures.told(shard, event.departed)
        if event.view_seen:
            self.views_seen[shard] = min(event.view_seen, self.membership.number)
            if self.ledger is not None:
                self.departures.seen(shard, event.view_seen, self.ledger)
        if event.initialised and event.initialisation == self._initialisation:
            self._initialised.add(shard)
            if self.initialised and self.phase == Phase.INITIALISING:
                self.phase = Phase.WARMING
        if event.pinned in self._pinned:
            self._pinned[event.pinned].add(shard)
        self.advance(now)

    def view_settled(self, number: int) -> bool:
        """Whether every shard knows the view of that number."""
        return all(self.views_seen.get(shard, 0) >= number for shard in self.shards)

    # ------------------------------------------------------------------ workers

    def register(self, request: pb.RegisterRequest, now: float) -> Member:
        """Admits a worker and fixes, or checks, layout and data.

        Raises:
            Unsupported: The worker speaks another version of the protocol.
            JobConflict: It comes for another job, or the job is over.
            LayoutMismatch: Its model or data are not the job's.
        """
        check_protocol(request.protocol)
        if request.job != self.job:
            raise JobConflict(
                f"this server runs job {self.job!r}; received a worker of job {request.job!r}. "
                "Start another server for another job."
            )
        if self.phase in OVER:
            raise JobConflict(f"job {self.job!r} has {self.phase}: start a new server for a new job.")
        layout = Layout.from_proto(request.layout)
        self._check_layout(layout)
        self._check_data(request.data)
        if self.layout is None:
            self.agree(layout, request.data)
        wanted = request.worker if request.HasField("worker") else None
        if wanted is not None and self.membership.get(wanted):
            if request.rejoin:
                wanted = None
            else:
                self.leave(wanted, now, f"worker {wanted} was started again: the older one is fenced")
        member = self.membership.join(wanted, request.host, request.pid, now, request.evaluator)
        if len(self.facts) < MOST_LIVES:
            self.facts[member.worker, member.incarnation] = _bounded(request.facts)
        if self.phase == Phase.WAITING:
            self.phase = Phase.INITIALISING
        self._send(pb.ShardCommand(view=self.membership.view()))
        return member

    def ready(self, request: pb.ReadyRequest, now: float) -> pb.ReadyReply:
        """Says whether a worker is to initialise the weights, may train, or is too late for either."""
        member = self._alive(request.session, now)
        if request.warm and not member.warm:
            member.warm = True
            known = self.facts.get((member.worker, member.incarnation))
            if known is not None:
                known.update(_bounded(request.facts))
            if self._first_warm_s is None:
                self._first_warm_s = now
        if self.phase == Phase.INITIALISING and self._initialiser is None and not self._resumed:
            self._initialiser = member.worker
        self.advance(now)
        return pb.ReadyReply(
            initialise=self.phase == Phase.INITIALISING
            and self._initialiser == member.worker
            and not request.initialised,
            start=self.phase not in BEFORE_TRAINING,
            end=self.phase in OVER,
        )

    def heartbeat(self, session: int, now: float) -> pb.HeartbeatReply:
        """Renews a session."""
        self._alive(session, now)
        return pb.HeartbeatReply(drain=self.draining, left_s=self.left_s(now))

    def next_task(self, session: int, now: float) -> pb.Task:
        """The next task of a worker, which has finished (or gives up) what it had."""
        member = self._alive(session, now)
        if not member.idle:
            member.idle = True
            self._give_up(member.worker)
            self.advance(now)
        if self.phase in OVER:
            return pb.Task(kind=pb.END, reason=self.notes[-1] if self.phase == Phase.FAILED else "")
        if self._tasks and (member.evaluator or not self._evaluator_free()):
            task = self._tasks.popleft()
            self._assigned[member.worker] = task
            member.idle = False
            self._rest(member)
            task.left_s = self.left_s(now)
            self.pace.begin(member.worker, now, task=True)
            return task
        may_train = self.phase == Phase.TRAINING and not member.evaluator and self._turn_of(member)
        lease = self.ledger.lease(member.worker) if self.ledger and may_train else None
        if lease is None:
            self._rest(member)
            self.pace.forget(member.worker)
            return pb.Task(kind=pb.WAIT)
        member.idle = False
        self._rest(member, False)
        self.pace.begin(member.worker, now)
        return pb.Task(kind=pb.TRAIN, lease=lease.number, epoch=lease.epoch, start=lease.start, stop=lease.stop)

    def report(self, request: pb.ReportRequest, now: float) -> None:
        """Takes the result of an evaluation task.

        Raises:
            InvalidRequest: The worker has no such task.
        """
        member = self._alive(request.session, now)
        task = self._assigned.get(member.worker)
        if task is None or task.kind != request.kind or task.epoch != request.epoch:
            raise InvalidRequest(
                f"a report must be of the task that worker {member.worker} was given; received one of "
                f"{pb.TaskKind.Name(request.kind)}, epoch {request.epoch}. Ask for a task."
            )
        del self._assigned[member.worker]
        self.pace.end(member.worker, now)
        if request.HasField("validation"):
            self.evaluations[request.epoch] = request.validation
        self._unpin(task.pin)
        if task.kind == pb.FINISH:
            self.test = request.test
            self._note_cut(request.test.samples)
        elif stagnates(self.evaluations, self.settings.early_stopping):
            self.stopped_early = True
            patience = self.settings.early_stopping
            self.drain(f"the validation loss has not fallen for {patience} epochs (--early-stopping)", now, asked=False)
        self.advance(now)

    def _note_cut(self, samples: int) -> None:
        """Says of how many samples the last result is, where it is not of all."""
        of = self.data.test_samples if self.data else 0
        if samples < of:
            what = f"evaluated on the first {samples:,} of {of:,} test samples" if samples else "not evaluated"
            self.notes.append(f"the model is saved and {what}: there was no time for more")

    def spent(self, step_s: float, exchange_s: float) -> None:
        """Counts what a worker's time went to."""
        if 0 <= exchange_s <= step_s < float("inf"):
            self.step_s, self.exchange_s = self.step_s + step_s, self.exchange_s + exchange_s

    def leave(self, worker: int, now: float, note: str = "") -> None:
        """Lets a worker go: what it had on loan is lent again."""
        member = self.membership.leave(worker)
        if member is None:
            return
        if note:
            self.notes.append(note)
        self.pace.forget(worker)
        self._return_task(worker)
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
                self._initialisation += 1  # some shards may have its weights: another's must not be mixed with them
                self._initialised.clear()
                command.initialisation = self._initialisation
        self._send(command)
        self.advance(now)

    def held_up(self, worker: int, now: float) -> None:
        """A worker waits for others, at a gate: that is no part of its step."""
        self.pace.put_off(worker, now)

    def doubt(self, worker: int, now: float) -> None:
        """A worker's connection broke: if it does not speak up soon, it has died."""
        self.membership.doubt(worker, now, DOUBT_S)

    # ------------------------------------------------------------------ data

    def used(self, worker: int, lease: int, epoch: int, start: int, stop: int, now: float) -> None:
        """Marks samples as used: their push has its outcome on shard 0, or is sure to get one."""
        assert self.ledger is not None
        self.ledger.use(lease, stop)
        self.pace.end(worker, now)
        self.pace.begin(worker, now)
        if self.ledger.complete(epoch):
            self.advance(now)

    @property
    def draining(self) -> bool:
        """Whether workers must finish no more than the batch that they have."""
        return self.phase in (Phase.DRAINING, *OVER)

    # ------------------------------------------------------------------ the course of the job

    def drain(self, reason: str, now: float, asked: bool = True) -> None:
        """Hands out no more data; the weights so far are evaluated and saved.

        Args:
            reason: For a person.
            now: The time.
            asked: Somebody waits for the end: it may not take longer than `DRAIN_S`, and not depend on a new worker.
        """
        if self.phase in OVER:
            return
        if self.phase in (Phase.DRAINING, Phase.FINISHING):
            if asked and self._drained_s is None:  # it is ending anyhow; from now on somebody waits for that
                self._drained_s = now
            return
        self.notes.append(f"draining: {reason}")
        self._drained_s = now if asked else None
        if self.phase == Phase.TRAINING and len(self.membership):
            self.phase = Phase.DRAINING
            for task in self._tasks:
                self._unpin(task.pin)
            self._tasks.clear()
            self.advance(now)
        elif self.started_s is None:
            self.notes.append("stopped before training began: there is nothing to save")
            self.phase = Phase.ENDED
        else:
            self.fail(reason)

    def left_s(self, now: float) -> float:
        """Time for evaluations, where somebody waits for the end of the job; 0: they take their time."""
        return 0.0 if self._drained_s is None else max(0.001, self._drained_s + EVALUATE_S - now)

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
        settings = self.settings
        if self._drained_s is not None and self.phase not in OVER:
            self._check_drained(now - self._drained_s)
        if self._lost_s is not None and now > self._lost_s + settings.reconnect_s:
            missing = sorted(set(range(settings.shards)) - set(self.shards))
            self.fail(f"shards {missing} were not back within {settings.reconnect_s:g} s: the job can be resumed")
        able = self.membership.trainers if self.phase == Phase.TRAINING else self.membership.members
        if able or self.phase in OVER:
            self._deserted_s = None
        elif self._deserted_s is None:
            self._deserted_s = now
        elif settings.idle_timeout_s and now > self._deserted_s + settings.idle_timeout_s:
            self.fail(f"no worker for {settings.idle_timeout_s:g} s: start one, or allow more with --idle-timeout-s")

    def _check_drained(self, waited_s: float) -> None:
        """Ends the job when the one who waits for its end has waited long enough."""
        deserted = not len(self.membership)
        if self.saved and (deserted or waited_s > SAVED_S):
            self._note_cut(0)
            self.phase = Phase.ENDED
        elif deserted:
            self.fail("no worker is left to save the model: the last checkpoint can be resumed")
        elif waited_s > DRAIN_S:
            self.fail(f"no worker saved the model within {DRAIN_S:g} s: the last checkpoint can be resumed")

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
            self._close_epochs()
        over = self.ledger.finished if self.phase == Phase.TRAINING else self.phase == Phase.DRAINING
        if over and self._all_idle():
            if len(self.membership) or self.phase == Phase.TRAINING:
                self._begin_finish()
            else:
                self.fail("no worker is left to evaluate and save the model")
        evaluating = (self._tasks or self._assigned or self._pinned) and self._drained_s is None
        if self.phase == Phase.FINISHING and self.test is not None and not (evaluating and len(self.membership)):
            self.phase = Phase.ENDED
        for pin, shards in list(self._pinned.items()):
            if len(shards) == self.settings.shards:
                del self._pinned[pin]
                self._tasks.append(self._task_of(pin))

    def _rest(self, member: Member, resting: bool = True) -> None:
        """Tells the shards whether others have to wait for a worker."""
        if member.resting != resting:
            member.resting = resting
            self._send(pb.ShardCommand(view=self.membership.view()))

    def _evaluator_free(self) -> bool:
        """Whether a task is to be left for an evaluator, which asks for one or soon will."""
        return any(
            each.evaluator and each.warm and each.worker not in self._assigned for each in self.membership.members
        )

    def _turn_of(self, member: Member) -> bool:
        """Whether a worker may train: during the warm start, only one does."""
        assert self.ledger is not None
        if self.ledger.used_total >= self.settings.warm_start * self.settings.batch_size:
            return True
        return member.worker == min(each.worker for each in self.membership.trainers if each.warm)

    def _may_start(self, now: float) -> bool:
        warm = sum(member.warm for member in self.membership.trainers)
        late = self._first_warm_s is not None and now >= self._first_warm_s + self.settings.start_timeout_s
        return warm > 0 and (self._resumed or warm >= self.settings.workers or late)

    def _all_idle(self) -> bool:
        busy = [member.worker for member in self.membership.members if not member.idle and member.warm]
        return all(worker in self._assigned for worker in busy)

    def _close_epochs(self) -> None:
        """Pins the weights of every epoch whose last sample has been used, to be evaluated."""
        assert self.ledger is not None and self.data is not None
        while self._closed_epochs < self.settings.epochs - 1 and self.ledger.complete(self._closed_epochs):
            self._closed_epochs += 1
            if self.data.validation_samples:
                self._pin(self._closed_epochs)

    def _begin_finish(self) -> None:
        self.phase = Phase.FINISHING
        self._send(pb.ShardCommand(flush=True))
        self._pin(self.settings.epochs + 1)

    def _task_of(self, pin: int) -> pb.Task:
        if pin == self.settings.epochs + 1:
            assert self.ledger is not None
            return pb.Task(kind=pb.FINISH, epoch=self.ledger.epoch, pin=pin)
        return pb.Task(kind=pb.VALIDATE, epoch=pin - 1, pin=pin)

    def _pin(self, number: int) -> None:
        self._pinned[number] = set()
        self._send(pb.ShardCommand(pin=number))

    def _unpin(self, number: int) -> None:
        self._send(pb.ShardCommand(unpin=number))

    def _give_up(self, worker: int) -> None:
        """Takes back the lease and the task that a worker holds."""
        self._return_task(worker)
        if self.ledger is not None:
            self.ledger.take_back(worker)

    def _return_task(self, worker: int) -> None:
        task = self._assigned.pop(worker, None)
        if task is None:
            return
        if task.kind == pb.VALIDATE and self._drained_s is not None:  # given up for the sake of the end
            self._unpin(task.pin)
        else:
            self._tasks.appendleft(task)

    def _alive(self, session: int, now: float) -> Member:
        member = self.membership.of_session(session)
        self.membership.renew(member, now)
        return member

    # ------------------------------------------------------------------ agreement

    def _check_layout(self, layout: Layout) -> None:
        if layout.size > LARGEST_LAYOUT:
            raise TooLarge(f"a model must have at most {LARGEST_LAYOUT:,} weights; received one of {layout.size:,}.")
        if self.layout is None:
            layout.cut(self.settings.shards)
            return
        difference = self.layout.difference(layout)
        if difference is not None:
            raise LayoutMismatch(f"a worker's model must be the job's, {self.settings.model!r}: {difference}.")

    def _check_data(self, data: pb.Data) -> None:
        if self.data is None:
            if not data.train_samples:
                raise LayoutMismatch(f"a job needs training samples; the data {data.name!r} have none.")
        elif data.checksum != self.data.checksum or data.train_samples != self.data.train_samples:
            raise LayoutMismatch(
                f"a worker's data must be the job's, {self.data.name!r} with checksum {self.data.checksum[:12]} and "
                f"{self.data.train_samples} training samples; received {data.name!r} with {data.checksum[:12]} and "
                f"{data.train_samples}. Give every worker the same file."
            )

    def _lease_samples(self, samples: int) -> int:
        batch = self.settings.batch_size
        batches = self.settings.lease_batches or samples // (batch * LEASES_PER_WORKER * self.settings.workers)
        if not self.settings.lease_batches:  # whole pushes
            batches = -(-batches // self.settings.push_every) * self.settings.push_every
        return batch * max(1, batches)


def _bounded(facts: Mapping[str, str]) -> dict[str, str]:
    """What is kept of the facts that a worker tells."""
    kept: dict[str, str] = {}
    for name, fact in list(facts.items())[:MOST_FACTS]:
        if sum(map(len, kept.values())) + len(fact) <= MOST_FACT_CHARACTERS:
            kept[name[:100]] = fact
    return kept


def stagnates(evaluations: Mapping[int, pb.Evaluation], patience: int) -> bool:
    """Whether the lowest validation loss is `patience` epochs or more behind; 0 waits for ever."""
    if not patience or not evaluations:
        return False
    best = min(evaluations, key=lambda epoch: (evaluations[epoch].loss, epoch))
    return max(evaluations) - best >= patience


def check_protocol(protocol: int) -> None:
    """Raises Unsupported unless the peer speaks this version of the protocol."""
    if protocol != PROTOCOL:
        raise Unsupported(f"both sides must speak protocol {PROTOCOL}; received {protocol}. Install the same version.")
