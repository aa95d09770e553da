"""Recovery after a server has died: all shards return to one checkpoint, as a new generation."""

from __future__ import annotations

import asyncio

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError
from downpour.protos.logs import reason_of
from downpour.protos.sentences.sentence import sentence
from downpour.protos.system import clock
from downpour.ps.control_plane.checkpoint_cut import part_of
from downpour.ps.control_plane.checkpointer import Checkpointer
from downpour.ps.control_plane.effects import Effects, JobChange
from downpour.ps.control_plane.job_snapshot import (
    check_fits,
    fit_state,
    has_batches_left,
    restore_job,
    restore_metrics,
    shard_facts,
)
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.phase import OVER, Phase
from downpour.ps.storage.checkpoint_file import Checkpoint, CheckpointError, load, newest, numbers, path_of
from downpour.ps.storage.run_directory import RunDirectory
from downpour.ps.trace.metrics import Metrics

RETRY_S = 0.5  # between two attempts to write to a disk that is full or read-only


class Recovery:
    """Restores a job from its newest checkpoint, after a start with --resume and after the loss of a shard."""

    def __init__(
        self,
        coordinator: Coordinator,
        metrics: Metrics,
        effects: Effects,
        checkpointer: Checkpointer,
        run: RunDirectory,
        change: JobChange,
    ) -> None:
        """Create the recovery of one job.

        Args:
            coordinator: The coordinator of the job.
            metrics: The counts of shard 0.
            effects: The object that delivers commands and states to the shards.
            checkpointer: The checkpointer of the job.
            run: The run directory, which contains the checkpoints.
            change: The object to notify when the job has changed.
        """
        self._coordinator, self._metrics, self._effects = coordinator, metrics, effects
        self._checkpointer, self._run, self._change = checkpointer, run, change
        self._task: asyncio.Task[None] | None = None

    def begin(self, resume: bool) -> None:
        """Begin the generation of this process; with `resume`, restore the newest checkpoint of the run directory."""
        coordinator = self._coordinator
        generation = self._run.begin_generation()
        if resume and generation > 1:
            coordinator.begin_generation(generation, clock.monotonic())
            self.joined()
        else:
            coordinator.job.set_generation(generation)
            self._run.traces.cut([0])
        self._effects.deliver()

    def lost(self, shard: int) -> None:
        """React to the loss of a shard of another process."""
        now, before = clock.monotonic(), self._coordinator.job.generation
        self._checkpointer.abandon(now)
        if self._coordinator.job.phase in OVER:
            self._coordinator.job.notes.append(sentence("shard_lost_after_end", shard=str(shard)))
        self._coordinator.shard_lost(shard, now)
        if self._coordinator.job.generation != before:
            self._keep_generation()
        self._effects.deliver()

    def _keep_generation(self) -> None:
        """Write the generation for the next start; if that fails, the sessions end with the process all the same."""
        try:
            self._run.note_generation(self._coordinator.job.generation)
        except OSError as error:
            self._coordinator.job.notes.append(sentence("generation_not_written", reason=reason_of(error)))

    def joined(self) -> None:
        """Begin to restore the job if it waits for that and no shard is missing any more."""
        coordinator = self._coordinator
        if coordinator.job.phase == Phase.RECOVERING and coordinator.job.shards.joined and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._restore(coordinator.job.generation))
            self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            self._coordinator.fail(sentence("not_resumable", reason=str(task.exception())))
        self.joined()  # another generation may have begun in the meantime
        self._change.notify()

    async def _restore(self, generation: int) -> None:
        """Restore the job; while the disk cannot be written, try again until `--reconnect-s` is over.

        Raises:
            OSError: The disk could not be written for that time.
        """
        give_up_s = clock.monotonic() + self._coordinator.job.settings.reconnect_s
        while True:
            try:
                return await self._restore_now(generation)
            except OSError as error:
                if clock.monotonic() > give_up_s:
                    raise
                self._coordinator.job.notes.append(sentence("run_directory_waits", reason=reason_of(error)))
                await asyncio.sleep(RETRY_S)

    async def _restore_now(self, generation: int) -> None:
        """Read the newest checkpoint and send every shard its part; without one, start the job over.

        If a shard has been lost meanwhile, nothing changes: the job is restored once that shard is back.

        Raises:
            ValueError: The checkpoint does not fit the job's settings.
        """
        coordinator = self._coordinator
        while not await self._checkpointer.settled(0.05):
            pass
        found, refused = await asyncio.get_running_loop().run_in_executor(None, self._newest)
        job = coordinator.job
        if job.generation != generation or job.phase in OVER or not job.shards.joined:
            return
        coordinator.job.notes.extend(refused)
        if found is None and refused:  # the trace and the checkpoints stay as they are for a person to look at
            coordinator.fail(sentence("no_checkpoint_readable", tried=len(refused), folder=str(self._run.checkpoints)))
        elif found is None:
            self._run.traces.cut([0])
            restore_metrics(self._metrics, None)
            coordinator.start_over(clock.monotonic())
            coordinator.job.notes.append(sentence("starts_over"))
        else:
            self._put(found, self._run.fit_after(found.number))
        self._effects.deliver()
        self._change.notify()

    def _newest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the checkpoint to restore, and for each newer one the reason why it is not used.

        If the workers of a script begin with its first line, it is one in which the current epoch has samples left:
        metrics that no worker has any more are then computed anew.
        """
        found, refused = newest(self._run.checkpoints)
        settings = self._coordinator.job.settings
        if found is None or not (settings.script and settings.fresh_workers):
            return found, refused
        for number in numbers(self._run.checkpoints):
            try:
                checkpoint = load(path_of(self._run.checkpoints, number))
                if has_batches_left(fit_state(checkpoint.facts, self._run.fit_after(number))):
                    return checkpoint, refused
            except (CheckpointError, ValueError):
                continue
        return found, refused

    def _put(self, checkpoint: Checkpoint, later: str) -> None:
        coordinator = self._coordinator
        check_fits(checkpoint, coordinator)
        try:
            restore_job(coordinator, self._metrics, checkpoint.facts, later)
        except DownpourError as error:
            raise ValueError(str(error)) from error
        assert coordinator.job.layout is not None
        slices = coordinator.job.layout.cut(coordinator.job.settings.shards)
        each = shard_facts(checkpoint.facts, len(slices))
        states = [each[shard] for shard in range(len(slices))]
        versions = [state.version for state in states] if coordinator.work.versions_increase else None
        lacking = self._run.traces.cut([state.records for state in states], versions)
        coordinator.job.notes.extend(
            sentence("trace_lacks" if count != 1 else "trace_lacks_one", shard=str(shard), count=count)
            for shard, count in lacking.items()
        )
        coordinator.restored(checkpoint.facts.closed_epochs, clock.monotonic())
        self._effects.deliver()  # every shard must know its layout before it gets its state
        for shard, part in enumerate(slices):
            facts = pb.SnapshotInfo(**each[shard].model_dump())
            state = part_of(checkpoint, part, facts)
            self._effects.restore(shard, state, checkpoint.number)
        code, used = "resumed_from", {}
        if (ledger := coordinator.work.ledger) is not None:
            code, used = "resumed_from_used", {"used": ledger.used_total, "total": ledger.total}
        coordinator.job.notes.append(sentence(code, number=str(checkpoint.number), version=each[0].version, **used))
