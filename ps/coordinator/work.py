"""The work of a job: the interface that built-in training and a script's `fit` implement.

This module is pure: it does no I/O and reads no clock.
"""

# ruff: noqa: B027 - a method without a body is an event, which a kind of work may ignore.

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, Unsupported
from downpour.protos.layout import Layout
from downpour.protos.sentences.sentence import sentence
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.ledger import Ledger
from downpour.ps.coordinator.membership import Member


@dataclass(frozen=True)
class WorkSummary:
    """The part of a job's summary that describes its work.

    Attributes:
        epochs: The number of planned epochs; None if the server does not know it.
        epochs_done: The number of complete epochs.
        batch_size: The number of samples in a batch; None if the server does not know it.
        samples: The number of training samples used; None if samples are not leased and only pushes count them.
        interrupted: Whether the job was asked to end before all of its work was done.
        history: The logs of every complete epoch by name; None if the evaluations of this server are the history.
    """

    epochs: int | None
    epochs_done: int
    batch_size: int | None
    samples: int | None
    interrupted: bool
    history: Sequence[Mapping[str, float]] | None = None


@dataclass(frozen=True)
class WorkProgress:
    """The place in the work that a job has reached.

    Attributes:
        epoch: The number of the current epoch, from 0.
        epochs: The number of the last epoch, plus 1; 0 if it is not known.
        batch_size: The number of samples in a batch; 0 if it is not known.
        remaining_from: The epoch at which the current call of `fit` began.
        samples_per_epoch: The number of samples in an epoch; 0 if it is not known.
        metrics: The logs of the newest complete epoch of a script.
    """

    epoch: int
    epochs: int
    batch_size: int
    remaining_from: int = 0
    samples_per_epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


class Work(ABC):
    """The work of one job. The coordinator asks it for tasks and informs it of members, shards and time.

    Attributes:
        restores_state: Whether the work continues from what `state` returned, rather than from the layout, the ledger
            and the evaluations of a checkpoint.
        versions_increase: Whether a shard's versions increase in the whole job; otherwise each generation begins at 0.
        records_leases: Whether the granted leases are recorded, because a replay must grant them in the same order.
        records_generations: Whether every generation is recorded for replay; otherwise only the first one is.
        progress_by_leases: Whether the ledger counts the samples of the job's progress; otherwise the pushes do.
        evaluations: The results on the validation split, by epoch.
        test: The result on the test split; None before the end.
    """

    restores_state = False
    versions_increase = True
    records_leases = False
    records_generations = False
    progress_by_leases = True

    def __init__(self, job: Job) -> None:
        """Create the work of a job that has no workers yet.

        Args:
            job: The state that the work shares with the coordinator.
        """
        self.job = job
        self.evaluations: dict[int, pb.Evaluation] = {}
        self.test: pb.Evaluation | None = None

    @property
    @abstractmethod
    def ledger(self) -> Ledger | None:
        """Return the leases of training samples; None if none are leased, or before the first worker registered."""

    # ------------------------------------------------------------------ members

    @abstractmethod
    def check_worker(self, request: pb.RegisterRequest, now: float) -> None:
        """Check that a worker belongs to this kind of work, and prepare for it.

        Raises:
            Unsupported: The worker cannot take part in this work.
            JobConflict: The worker's call of `fit` or its optimizer differs from the other workers'.
        """

    @abstractmethod
    def check_model(self, layout: Layout, data: pb.DatasetInfo) -> None:
        """Check a worker's layout and data against those that were agreed on, or accept them as the first.

        Raises:
            LayoutMismatch: The layout or the data differ from those of the other workers.
        """

    def check_call(self) -> None:
        """Raise LayoutMismatch if the workers of a call of `fit` do not fit together; other work has no calls."""

    @abstractmethod
    def open(self) -> None:
        """Prepare for training with the job's `layout` and `data`, which were just agreed on; nothing is used."""

    def joined(self, member: Member) -> None:
        """Record that a worker has registered."""

    @abstractmethod
    def left(self, member: Member, now: float) -> None:
        """Take back the task and the samples that were assigned to a worker that has left."""

    @abstractmethod
    def shard_lost(self, shard: int, now: float) -> None:
        """React to the loss of a shard, which has been removed from the job's table."""

    def await_shard(self, shard: int, now: float) -> None:
        """Begin another generation, which continues from the last checkpoint once a lost shard is back."""
        job = self.job
        job.notes.append(sentence("shard_lost_waits", shard=str(shard), seconds=f"{job.settings.reconnect_s:g}"))
        job.begin_generation(job.generation + 1, now)
        self.reset()

    def release_leases(self, member: Member) -> None:
        """Make the unused samples of a worker that has left available; with several shards, once these have reported.

        The view without the worker must be the current one.
        """
        job = self.job
        if self.ledger is None:
            return
        if job.settings.shards == 1:
            self.ledger.take_back(member.worker)
        else:
            view, shards = job.membership.number, job.settings.shards
            job.orphans.begin(member.worker, member.incarnation, view, self.ledger, shards)

    def check_worker_added(self) -> None:
        """Check that workers may be added while the job trains.

        Raises:
            InvalidRequest: The number of workers is fixed.
        """

    def trains(self, member: Member) -> None:
        """Record that a worker is ready to train."""

    # ------------------------------------------------------------------ progress

    @abstractmethod
    def next_task(
        self, member: Member, now: float, epoch: int | None = None, wanted: pb.LeaseRequest | None = None
    ) -> pb.Task:
        """Return a worker's next task; unless it asks ahead, one that it still holds counts as finished or given up.

        Args:
            member: The worker.
            now: The current time in seconds.
            epoch: The epoch of the call of `fit` that a script's worker trains in; None otherwise.
            wanted: What a script's worker asks for: whether it trains on an earlier lease meanwhile, and the size.
        """

    @abstractmethod
    def samples_used(self, worker: int, lease: int, epoch: int, start: int, stop: int, now: float) -> None:
        """Mark positions `[start, stop)` of a lease as used: shard 0 has accepted their gradient."""

    def samples_reported(self, member: Member, epoch: int | None, uses: Iterable[pb.LeaseUse], now: float) -> None:
        """Mark samples as used that a script's worker has used without a push; a repetition changes nothing."""

    def pinned(self, number: int, shard: int) -> None:
        """Record that a shard has pinned its weights under a number."""

    def report(self, member: Member, request: pb.ReportRequest, now: float) -> None:
        """Record the result of an evaluation task.

        Raises:
            InvalidRequest: The worker has no such task.
        """
        raise InvalidRequest("only built-in training has evaluation tasks; received a report in a script's job.")

    def advance(self, now: float) -> None:
        """Make every state transition that has become possible."""

    def tick(self, now: float) -> None:
        """Act on deadlines that have passed at the time `now`."""

    # ------------------------------------------------------------------ the end

    @property
    @abstractmethod
    def draining(self) -> bool:
        """Return whether workers must stop after the batch that they have."""

    @property
    def stop_requested(self) -> bool:
        """Return whether workers must end the current epoch early, without an end of the job."""
        return False

    @abstractmethod
    def drain(self, reason: str, now: float, asked: bool = True) -> None:
        """Begin to end the job early; see `Coordinator.drain`."""

    def interrupt(self) -> None:
        """Record that a signal has asked the servers to end, and not the script itself."""

    # ------------------------------------------------------------------ generations

    @property
    @abstractmethod
    def checkpointable(self) -> bool:
        """Return whether a checkpoint can be taken of the present state of the work."""

    @property
    def revision(self) -> int:
        """Return the number of changes that workers must not learn before a checkpoint contains them."""
        return 0

    @property
    def committed(self) -> bool:
        """Return whether workers may learn of all changes so far."""
        return True

    @property
    def initialiser(self) -> int | None:
        """Return the worker that must send the initial weights; None if any may."""
        return None

    @property
    def completed_call(self) -> int:
        """Return the number of a script's call of `fit` whose final weights the shards have now; 0 if there is none."""
        return 0

    @property
    def awaits_slots(self) -> bool:
        """Return whether the worker that sends the initial weights has yet to send the slots of the optimizer."""
        return False

    def commit(self, revision: int) -> None:
        """Record that a checkpoint contains the changes up to a revision, or that none could be written."""

    def state(self) -> bytes:
        """Return what a checkpoint contains of the work besides the ledger and the evaluations."""
        return b""

    def check_resumed(self, saved: Mapping[str, str | int]) -> None:
        """Check the settings of a checkpoint, by name, against the job's.

        Raises:
            ValueError: The work cannot continue with another value of a setting.
        """

    def restore_state(self, state: pb.FitState) -> None:
        """Continue from the state of a script's `fit` in a checkpoint; `Coordinator.restored` must follow.

        Raises:
            ValueError: The work is not a script's, or cannot have been in that state.
            Unsupported: The servers do not have the optimizers.
        """
        raise ValueError("the checkpoint must be one of built-in training; received one of a script.")

    def reset(self) -> None:
        """Drop what belongs to an earlier generation of the shards."""

    def restored(self, closed_epochs: int) -> None:
        """Continue after a checkpoint in which `closed_epochs` epochs were evaluated; the ledger is restored."""

    @property
    def closed_epochs(self) -> int:
        """Return the number of epochs whose weights have been evaluated, or need no evaluation."""
        return 0

    # ------------------------------------------------------------------ results

    @abstractmethod
    def summary(self) -> WorkSummary:
        """Return what the job's summary states about the work."""

    @abstractmethod
    def progress(self) -> WorkProgress:
        """Return the place that the job has reached."""

    @property
    def has_accuracy(self) -> bool:
        """Return whether the model is a classifier, whose accuracy the workers report."""
        return self.job.data is None or not self.job.data.numeric_targets

    @property
    def counts_accuracy(self) -> bool:
        """Return whether the accuracies of pushes and evaluations are results of the job."""
        return self.has_accuracy

    @abstractmethod
    def newest_results(self) -> tuple[int, Mapping[str, float]]:
        """Return the number of evaluated epochs and the results of the newest one by name."""

    # ------------------------------------------------------------------ for scripts only

    @property
    def decisions(self) -> Sequence[pb.Decision]:
        """Return the decisions on the epochs that are complete in the current call of `fit`."""
        return ()

    @property
    def epoch_begun(self) -> bool:
        """Return whether the epoch after those with a decision has begun in the current call of `fit`."""
        return False

    @property
    def starters(self) -> int:
        """Return the number of workers that must be ready before training starts without waiting longer."""
        return self.job.settings.workers

    @property
    def epoch_ending(self) -> bool:
        """Return whether the workers are between the logs of the last epoch with a decision and its end."""
        return False

    @property
    def initial_epoch(self) -> int:
        """Return the number of the first epoch of the current call of `fit`."""
        return 0

    def past_reply(self, request: pb.RegisterRequest) -> pb.RegisterReply | None:
        """Return the reply to a worker that registers for a call of `fit` that is over, else None."""
        return None

    def pushed(self, worker: int, pushes: int) -> None:
        """Record the number of pushes of a worker so far."""

    def blocked(self, workers: Collection[int]) -> None:
        """Record all workers whose pushes wait for other workers now."""

    def overdue(self, now: float) -> list[tuple[int, float]]:
        """Return the workers that others wait for in vain, each with its time without progress in seconds."""
        return []

    def worker_failed(self, worker: int, error_type: str, text: str) -> None:
        """React to the error of a worker, which is about to leave.

        Args:
            worker: The number of the worker.
            error_type: The class of the error, `MODULE:NAME`.
            text: The message of the error.
        """

    def may_register(self, request: pb.RegisterRequest) -> bool:
        """Return whether a worker may register now, rather than wait until the others have left an earlier `fit`."""
        return True

    def meet(self, request: pb.BarrierRequest, now: float) -> pb.BarrierReply:
        """Record a worker's arrival at the barrier at the end of an epoch of `fit`, or of `fit` itself.

        Raises:
            Unsupported: The job is not a script's.
            InvalidRequest: The worker is ahead of the others.
            JobConflict: The job is over.
        """
        raise Unsupported("a barrier belongs to a script; this server runs built-in training. Start it with --script.")

    def set_rates(self, request: pb.SetLearningRatesRequest, now: float) -> None:
        """Set the learning rate of later updates.

        Raises:
            Unsupported: The job is not a script's.
            InvalidRequest: The request does not come from worker 0, or is not a valid table.
        """
        raise Unsupported(
            "only a script sets learning rates; this server runs built-in training. Start it with --script."
        )

    def is_leader(self, session: int) -> bool:
        """Return whether a session is that of the worker whose callbacks run."""
        return False
