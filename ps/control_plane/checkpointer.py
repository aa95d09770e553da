"""Checkpoints of a job: when one is due, the cut over all shards, and the file, which is written during training."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.logs import reason_of
from downpour.protos.sentences.sentence import sentence
from downpour.protos.system import clock, descriptors, threads
from downpour.ps.config_change import apply_change
from downpour.ps.config_values import interval_of
from downpour.ps.control_plane.checkpoint_cut import CheckpointCut
from downpour.ps.control_plane.checkpoint_interval import CheckpointInterval
from downpour.ps.control_plane.job_snapshot import job_facts
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.phase import Phase
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.data_plane.snapshot import ShardState
from downpour.ps.storage.checkpoint_file import numbers, prune, save
from downpour.ps.storage.run_directory import CHANGES, RunDirectory

CUT_TIMEOUT_S = 5.0  # limit of a cut over several shards, after which it is abandoned and tried again later
RETRY_CUT_S = 0.1  # after a cut was abandoned
KEPT_PHASES = (Phase.WARMING, Phase.TRAINING, Phase.DRAINING, Phase.FINISHING, Phase.ENDED, Phase.FAILED)


class Checkpointer:
    """Takes checkpoints of one job.

    Attributes:
        taken: The number of checkpoints written by this process.
        failed: The number of checkpoints that could not be written.
        last_s: The time at which the last checkpoint was written, by the monotonic clock; None before.
        seconds: The duration of the last checkpoint, from the command to hold pushes until it was on the disk.
        pause_s: The seconds for which the last cut held back pushes on shard 0.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        runtime: ShardRuntime,
        run: RunDirectory,
        flush_trace: Callable[[], None],
        on_written: Callable[[], None] = lambda: None,
    ) -> None:
        """Create a checkpointer that continues the numbers of the run's checkpoints.

        Args:
            coordinator: The coordinator of the job.
            runtime: The runtime of shard 0.
            run: The run directory, to which checkpoints are written.
            flush_trace: A function that writes the records of shard 0 that are not written yet.
            on_written: A callback for every checkpoint that has been written, or could not be.
        """
        self._coordinator, self._job, self._runtime, self._run = coordinator, coordinator.job, runtime, run
        self._flush_trace, self._on_written = flush_trace, on_written
        settings = coordinator.job.settings
        self._interval = CheckpointInterval(*interval_of(settings.checkpoint_every))
        self._keep = settings.checkpoint_keep
        self.taken, self.failed, self.last_s, self.seconds, self.pause_s = 0, 0, None, 0.0, 0.0
        self._number = max(numbers(run.checkpoints), default=0)
        self._cut: CheckpointCut | None = None
        self._writing: asyncio.Future[None] | None = None
        self._kept: object = None  # identifies the contents of the last checkpoint
        self._requested_from_s = 0.0  # a cut that a user has requested is not begun before
        self._noted_generation = 0  # of a script, whose calls of `fit` are generations
        self._written_number = 0  # of the last checkpoint that was written
        self._failing = ""
        self._executor = threads.executor("checkpoint")

    last_s: float | None

    @property
    def busy(self) -> bool:
        """Return whether a checkpoint is under way."""
        return self._cut is not None or self._writing is not None

    @property
    def cutting(self) -> bool:
        """Return whether a cut is under way, so that shards may hold pushes."""
        return self._cut is not None

    def tick(self, now: float) -> None:
        """Begin a checkpoint if one is due; abandon a cut that takes too long."""
        if self._cut is not None and now > self._cut.begun_s + CUT_TIMEOUT_S:
            self.abandon(now)
        version = self._runtime.shard.version if self._runtime.shard else 0
        self._begin_requested(now)
        if self._interval.is_due(now, version) and self._may_begin() and self._content() != self._kept:
            self._begin(now)

    def _begin_requested(self, now: float) -> None:
        """Begin the cut that a user has requested, for a checkpoint or for a change of the settings."""
        job, saved = self._job, self._can_be_taken()
        if job.checkpoint_requested and saved and not self.busy and self._content() == self._kept:
            job.checkpoint_made(now)  # the last checkpoint has this state
        if job.phase != Phase.TRAINING:
            job.cancel_requests()
        if not (job.checkpoint_requested or job.pending_change) or now < self._requested_from_s:
            return
        if self.busy or len(job.orphans) or not (job.shards.initialised and job.shards.joined):
            return
        if job.pending_change is not None and not self._note_changes(durable=True):
            job.cancel_change()
            return
        self._begin(now, saved)

    def _note_changes(self, durable: bool = False) -> bool:
        """Write the changes of the settings, with the pending one, to the run directory; return whether that succeeded.

        They are on the disk before they take effect, so that a server that is started again continues with them.
        """
        pending = self._job.pending_change
        changes = [*self._job.changes, *([] if pending is None else [pending])]
        try:
            self._run.write_json(CHANGES, {"changes": [each.model_dump() for each in changes]}, durable)
        except OSError as error:
            self._job.notes.append(sentence("settings_not_written", file=CHANGES, reason=reason_of(error)))
            return False
        return True

    def begin_last(self, now: float) -> bool:
        """Begin a checkpoint of the present state if possible; return whether none is needed any more.

        It may not be possible yet, while a checkpoint is under way or shards have not reported on workers that left.
        """
        if self.busy:
            return False
        if not self._interval.enabled or self._content() == self._kept or not self._can_be_taken():
            return True
        if self._may_begin():
            self._begin(now)
        return False

    def commit(self, now: float) -> bool:
        """Write the revisions of a script's `fit` that its workers wait for; return whether there are new commands.

        If weights, slots and used samples are those of the last checkpoint, the state of `fit` alone is written.
        """
        work = self._coordinator.work
        if work.committed or self.busy:
            return False
        if self._content() != self._kept:
            may_begin = self._may_begin()
            if may_begin:
                self._begin(now)
            return may_begin
        try:
            self._run.keep_fit(self._written_number, work.state(), self._job.generation, self._noted_generation)
            self._noted_generation = self._job.generation
            if work.completed_call:
                self._run.keep_completed(self._written_number, work.completed_call)
        except OSError as error:
            self._job.notes.append(sentence("fit_state_not_written", reason=reason_of(error)))
        work.commit(work.revision)
        return False

    async def settled(self, timeout_s: float) -> bool:
        """Wait until no checkpoint is under way, at most `timeout_s`; return whether that is so."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=timeout_s)
        else:
            await asyncio.sleep(timeout_s if self._cut is not None else 0)
        return not self.busy

    def close(self) -> None:
        """Wait for the thread that writes checkpoints, and end it."""
        self._executor.shutdown(wait=True)

    # ------------------------------------------------------------------ the cut

    def event(self, shard: int, event: pb.ShardEvent, now: float) -> None:
        """Process the parts of a shard's event that concern a cut."""
        cut = self._cut
        if event.HasField("departed") and self._job.settings.shards > 1:
            self.abandon(now)  # some of its pushes may have reached some shards only
        elif cut is None:
            return
        elif event.HasField("held"):
            targets = cut.round.held(shard, event.held)
            if targets is not None:
                if cut.change is not None:
                    changed = apply_change(self._job.settings, cut.change).model_dump_json()
                    targets.change.CopyFrom(pb.SettingsChange(number=cut.change.number, settings=changed))
                self._job.send(cut=targets)
        elif event.HasField("part") and event.part.number == cut.round.number:
            state = cut.assemblies[shard].feed(event.part)
            if state is not None:
                cut.states[shard] = state
                self._write_if_complete(now)

    def abandon(self, now: float) -> None:
        """Abandon the cut that is under way: a worker left, a shard was lost, or it takes too long."""
        cut, self._cut = self._cut, None
        if cut is None:
            return
        self._job.send(cut=pb.Cut(number=cut.round.number, abandon=True))
        cut.release()
        self._kept = None  # the present state has not been kept
        self._interval.put_off(now + RETRY_CUT_S)
        self._requested_from_s = now + RETRY_CUT_S

    def _may_begin(self) -> bool:
        return self._can_be_taken() and not self.busy and not len(self._job.orphans)

    def _can_be_taken(self) -> bool:
        """Return whether checkpoints are taken of this work, and the job is in a state that can be kept."""
        job, work = self._job, self._coordinator.work
        ready = job.phase in KEPT_PHASES and job.shards.initialised and job.shards.joined
        return ready and work.checkpointable

    def _content(self) -> object:
        """Return a value that differs if a checkpoint would differ from the one before."""
        work, shard = self._coordinator.work, self._runtime.shard
        used = work.ledger.used_total if work.ledger else 0
        assigned = self._runtime.assigned
        return shard and shard.version, used, tuple(work.evaluations), self._job.generation, assigned

    def _begin(self, now: float, saved: bool = True) -> None:
        """Begin a cut; `saved` is whether its checkpoint is written."""
        self._number += 1
        layout, shards = self._job.layout, self._job.settings.shards
        assert layout is not None
        names, generation = self._runtime.builder.state_sizes(), self._job.generation
        self._cut = CheckpointCut(
            self._number, layout.cut(shards), names, now, generation, (saved, self._job.pending_change)
        )
        self._kept = self._content() if saved else self._kept
        self._job.send(hold=self._number)

    def take_state(self, number: int, state: ShardState) -> None:
        """Take shard 0's state for a cut and, in the same turn of the loop, the state of the job."""
        now, cut = clock.monotonic(), self._cut
        if cut is None or cut.round.number != number:
            state.release()
            return
        if cut.saved:
            work = self._coordinator.work
            cut.take_job(job_facts(self._coordinator, self._runtime.metrics, now), work.revision, work.completed_call)
        cut.states[0] = state
        if cut.change is not None:
            self._job.change_made(state.facts.version, now)
            self._note_changes(durable=True)  # a torn file would keep the run from being resumed
        self.pause_s = now - cut.begun_s
        self._flush_trace()
        self._write_if_complete(now)

    # ------------------------------------------------------------------ the file

    def _write_if_complete(self, now: float) -> None:
        cut = self._cut
        if cut is None or len(cut.states) < len(cut.slices):
            return
        self._cut = None
        if not cut.saved:
            cut.release()
            return
        self._writing = asyncio.get_running_loop().run_in_executor(self._executor, self._write, cut)
        self._writing.add_done_callback(lambda done: self._written(cut, done))

    def _write(self, cut: CheckpointCut) -> None:
        """Write a checkpoint; this runs in a thread of its own."""
        with descriptors.reserve.released():
            self._run.traces.sync()
            save(self._run.checkpoints, cut.checkpoint())
            if cut.completed_call:
                self._run.keep_completed(cut.round.number, cut.completed_call)
            prune(self._run.checkpoints, self._keep)
            self._run.prune_fit()

    def _written(self, cut: CheckpointCut, done: asyncio.Future[None]) -> None:
        now, failure = clock.monotonic(), done.exception()
        cut.release()
        self._writing = None
        self.seconds = now - cut.begun_s
        self._interval.taken(cut.begun_s, now, cut.states[0].facts.version)
        made = cut.round.number, cut.states[0].facts.version
        self._job.checkpoint_made(now, made if failure is None else None, "" if failure is None else str(failure))
        if cut.generation == self._job.generation:
            self._coordinator.work.commit(cut.revision)
        self._on_written()
        if failure is None:
            self.taken, self.last_s, self._written_number = self.taken + 1, now, cut.round.number
            if self._failing:
                self._job.notes.append(sentence("checkpoints_again"))
            self._failing = ""
            return
        self._kept, self.failed = None, self.failed + 1
        if (reason := kind_of_failure(failure)) != self._failing:
            self._failing = reason
            self._job.notes.append(sentence("no_checkpoint_written", reason=reason_of(failure)))


def kind_of_failure(failure: BaseException) -> str:
    """Return why a checkpoint could not be written, without the name of its file: that is another one each time."""
    return failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure)
