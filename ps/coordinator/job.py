"""The state of one job, shared by the coordinator and its work. Pure: no gRPC, no files, no clock of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import Layout
from downpour.protos.sentences.sentence import sentence
from downpour.ps.config import ServerSettings
from downpour.ps.config_change import Change, apply_change
from downpour.ps.config_checks import warnings_of
from downpour.ps.coordinator.deadlines import JobDeadlines, StepDeadlines
from downpour.ps.coordinator.membership import Member, Membership
from downpour.ps.coordinator.orphaned_leases import OrphanedLeases
from downpour.ps.coordinator.phase import OVER, Phase
from downpour.ps.coordinator.shard_table import ShardTable

MAX_CHECKPOINTS = 500  # that the summary lists
MAX_EVENTS = 1_000  # kept
MAX_NOTES, FIRST_NOTES = 1_000, 100  # kept, and of these the oldest
MAX_NOTE_CHARACTERS = 1_000


class JobNotes(list[str]):
    """Messages for the user, oldest first, in bounded memory: all of them are part of every status.

    The first and the newest notes are kept. A note that repeats the newest one is dropped.
    """

    def __init__(self, notes: Iterable[str] = ()) -> None:
        """Create a bounded list of notes with initial content."""
        super().__init__()
        self._dropped = 0
        self.extend(notes)

    def append(self, note: str) -> None:
        """Add a note of at most `MAX_NOTE_CHARACTERS` characters, unless it repeats the newest one."""
        if note != self.newest:
            super().append(note if len(note) <= MAX_NOTE_CHARACTERS else note[:MAX_NOTE_CHARACTERS])
        if len(self) > MAX_NOTES:
            del self[FIRST_NOTES]
            self._dropped += 1

    def extend(self, notes: Iterable[str]) -> None:
        """Append notes, and drop the oldest beyond the bound."""
        for note in notes:
            self.append(note)

    @property
    def newest(self) -> str:
        """The newest note; empty if there is none."""
        return self[-1] if self else ""

    @property
    def total(self) -> int:
        """The number of notes so far, with those that were dropped."""
        return len(self) + self._dropped

    def of_failure(self, worker: int, reason: str) -> str:
        """Return the note that a worker gave up, without its reason if the last one that gave up had the same."""
        earlier = next((note for note in reversed(self) if " gave up: " in note), "")
        same = earlier.endswith(f" gave up: {reason}")
        return sentence("gave_up_again" if same else "gave_up", worker=str(worker), reason=reason)

    def since(self, count: int) -> list[str]:
        """Return the notes after the first `count`, as far as they are kept."""
        return self[count if count < FIRST_NOTES else max(FIRST_NOTES, count - self._dropped) :]


class EventKind(StrEnum):
    """The kinds of the events of a job that have a time."""

    PAUSED = "paused"
    CONTINUED = "continued"
    CHECKPOINT = "checkpoint"


class JobEvents:
    """What happened to the job and when, oldest first; only the newest `MAX_EVENTS` are kept."""

    def __init__(self) -> None:
        """Create an empty list."""
        self._events: deque[pb.JobEvent] = deque(maxlen=MAX_EVENTS)
        self.total = 0

    def append(self, event: pb.JobEvent) -> None:
        """Add an event, in place of the oldest one if there are `MAX_EVENTS` already."""
        self._events.append(event)
        self.total += 1

    def since(self, count: int) -> list[pb.JobEvent]:
        """Return the events after the first `count`, as far as they are kept."""
        dropped = self.total - len(self._events)
        return list(self._events)[max(0, count - dropped) :]


class Job:
    """Holds the members, the shards, the phase and the deadlines of a job, and the commands that wait for delivery.

    Attributes:
        name: The job's name, which workers must send when they register.
        phase: The phase that the job is in.
        layout: The layout that all workers agreed on; None before the first worker registered.
        data: The data set that all workers agreed on; None before the first worker registered.
        shards: The shards that have joined.
        generation: The number of the shards' present generation; state of an earlier generation is void.
        begun: Whether the first generation of this process has begun.
        first_generation: The first generation of which nothing has been undone since.
        orphans: The leases of workers that left, until every shard has reported the last push of these workers.
        step_deadlines: The time limits of workers' steps.
        deadlines: The time limits of the job for workers, for shards and for its end.
        outbox: Commands for all shards, in the order in which they must be delivered.
        started_s: The time at which training started; None before.
        elapsed_s: The seconds of training before the last start.
        step_s: The seconds that workers which have left spent in training steps.
        exchange_s: The seconds of `step_s` that they spent in exchanges with the shards.
        notes: Messages for the user, oldest first.
        facts: The versions and settings reported by each incarnation `(worker, incarnation)` of a worker.
        stopped_at_once: Whether a user requested to end the job without waiting for its workers.
        saved: Whether the trained model has been uploaded.
        paused: Whether no samples are leased until a user resumes the job.
        changes: The changes of the settings that have taken effect.
        pending_change: The change of the settings that takes effect at the next cut; None if there is none.
        checkpoint_requested: Whether a user waits for a checkpoint.
        checkpoint_failure: Why the last checkpoint could not be written; empty if it was.
        last_checkpoint: The number and the version of the last checkpoint that this process has written.
        checkpoints: The numbers and the versions of the newest checkpoints.
        workers_wanted: The number of workers at the start, and that a user has added since.
        resumed: Whether the weights come from a checkpoint.
        initialiser: The worker that was asked to send the initial weights; None if none was.
        initial_sent: Whether it has reported that it has sent the weights, and the slots if there are any.
        first_warm_s: The time at which the first worker reported that its gradient is compiled; None before.
    """

    def __init__(self, settings: ServerSettings, name: str, new_session: Callable[[], int]) -> None:
        """Create a job without workers and without shards.

        Args:
            settings: The settings of the job.
            name: The name of the job.
            new_session: A function that returns an unguessable number for each new session.
        """
        self.settings, self.name = settings, name
        self.phase = Phase.WAITING
        self.membership = Membership(settings.session_s, new_session)
        self.layout: Layout | None = None
        self.data: pb.DatasetInfo | None = None
        self.shards = ShardTable(settings.shards)
        self.generation, self.begun, self.first_generation = 1, False, 1
        self.orphans = OrphanedLeases()
        self.step_deadlines = StepDeadlines(settings.session_s)
        self.deadlines = JobDeadlines(settings.reconnect_s, settings.idle_timeout_s, settings.drain_timeout_s)
        self.outbox: deque[pb.ShardCommand] = deque()
        self.started_s: float | None = None
        self.elapsed_s = 0.0
        self.step_s = self.exchange_s = 0.0
        self.notes = JobNotes(warnings_of(settings))
        self.facts: dict[tuple[int, int], dict[str, str]] = {}
        self.changes: list[Change] = []
        self.pending_change: Change | None = None
        self.checkpoint_requested, self.checkpoint_failure, self.last_checkpoint = False, "", (0, 0)
        self.checkpoints: deque[tuple[int, int]] = deque(maxlen=MAX_CHECKPOINTS)
        self.events = JobEvents()
        self.workers_wanted = settings.workers
        self.saved = self.resumed = self.stopped_at_once = self.paused = False
        self.initialiser: int | None = None
        self.initial_sent = False
        self.first_warm_s: float | None = None

    @property
    def is_open(self) -> bool:
        """Return whether workers may register.

        They may when the generation of this process has begun, all shards have joined, and no checkpoint is being
        restored.
        """
        return self.begun and self.shards.joined and self.phase != Phase.RECOVERING

    def send(self, **command: Any) -> None:
        """Append a `ShardCommand` with the given fields to the outbox."""
        self.outbox.append(pb.ShardCommand(**command))

    def send_view(self) -> None:
        """Append a command that gives every shard the current view of the members."""
        self.send(view=self.membership.view())

    def set_resting(self, member: Member, resting: bool = True) -> None:
        """Set whether other workers must wait for this one, and send the view to the shards if that changed."""
        if member.resting != resting:
            member.resting = resting
            self.send_view()

    def renew(self, session: int, now: float) -> Member:
        """Renew a session and return its worker.

        Raises:
            UnknownWorker: No live worker has the session.
        """
        member = self.membership.of_session(session)
        self.membership.renew(member, now)
        return member

    def fail(self, reason: str) -> None:
        """End the job without a result; a job that is over does not change."""
        if self.phase not in OVER:
            self.notes.append(reason)
            self.phase = Phase.FAILED

    def mark_saved(self) -> None:
        """Note that the trained model has been published."""
        self.saved = True

    def continue_changes(self, changes: Sequence[Change]) -> None:
        """Continue the changes of the settings of an earlier process of this run, whose effect the settings contain."""
        self.changes = list(changes)

    def change_made(self, version: int, now: float) -> None:
        """Note that the pending change took effect at a version of shard 0, and send the settings to all shards."""
        change, self.pending_change = self.pending_change, None
        if change is None:
            return
        self.changes.append(change.effective(version, self.elapsed_at(now)))
        self.settings = apply_change(self.settings, change)
        self.notes.append(sentence("changed", version=version, change=change.text))
        self.send(settings=self.settings.model_dump_json())

    def cancel_change(self) -> None:
        """Withdraw the pending change."""
        self.pending_change = None

    def cancel_requests(self) -> None:
        """Withdraw the pending change and the request for a checkpoint, because the job does not train."""
        self.pending_change, self.checkpoint_requested = None, False

    def checkpoint_made(self, now: float, made: tuple[int, int] | None = None, failure: str = "") -> None:
        """Note the number and the version of a checkpoint that was written, or why it could not be written."""
        if made is not None:
            self._note_event(EventKind.CHECKPOINT, now, *made)
            self.last_checkpoint = made
            self.checkpoints.append(made)
        self.checkpoint_requested, self.checkpoint_failure = False, failure

    def pause(self, paused: bool, now: float) -> None:
        """Note that no more samples are leased from now on, or that they are leased again."""
        self.paused = paused
        self.notes.append(sentence("paused" if paused else "resumed"))
        self._note_event(EventKind.PAUSED if paused else EventKind.CONTINUED, now)

    def _note_event(self, kind: EventKind, now: float, number: int = 0, version: int = 0) -> None:
        elapsed_s = self.elapsed_at(now)
        self.events.append(pb.JobEvent(kind=kind, elapsed_s=elapsed_s, number=number, version=version))

    def elapsed_at(self, now: float) -> float:
        """Return the seconds of training up to a time."""
        return self.elapsed_s if self.started_s is None else now - self.started_s

    def set_generation(self, generation: int) -> None:
        """Set the generation with which a job that resumes nothing begins, and send it to the shards."""
        self.generation, self.begun, self.first_generation = generation, True, generation
        self.send(generation=generation)

    def restore_progress(self, elapsed_s: float, partial_pushes: int) -> None:
        """Continue the training time and the count of partial pushes from a checkpoint."""
        self.elapsed_s = elapsed_s
        self.orphans.restore_partial(partial_pushes)

    def begin_generation(self, generation: int, now: float, next_call: bool = False) -> None:
        """End every session, void the shards' state and set `phase` to RECOVERING.

        Args:
            generation: The number of the generation.
            now: The current time in seconds.
            next_call: Whether the next call of a script's `fit` begins, so that nothing is undone.
        """
        self.generation, self.begun = generation, True
        self.first_generation = self.first_generation if next_call else generation
        if self.started_s is not None:
            self.elapsed_s, self.started_s = now - self.started_s, None
        self.phase, self.saved, self.deadlines.lost_s = Phase.RECOVERING, False, now
        self.membership.clear()
        self.orphans.clear()
        self.step_deadlines.clear()
        self.shards.forget_weights()
        self.initialiser = self.first_warm_s = None
        self.initial_sent = False
        self.send(generation=generation, view=self.membership.view(), next_call=next_call)
