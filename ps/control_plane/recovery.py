"""How a job goes on after a server died: all shards return to one cut, as a new generation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError
from downpour.ps.control_plane.checkpointer import Checkpointer, part_of
from downpour.ps.control_plane.job_snapshot import check_fits, restore_job, restore_metrics, shard_facts
from downpour.ps.control_plane.shard_link import ShardLinks
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.phase import OVER, Phase
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.data_plane.snapshot import pieces
from downpour.ps.storage.checkpoint_file import Checkpoint, newest
from downpour.ps.storage.run_directory import RunDirectory


class Recovery:
    """Brings a job back: after a start with --resume, and when a shard that was lost has joined again."""

    def __init__(
        self,
        coordinator: Coordinator,
        host: ShardRuntime,
        lines: ShardLinks,
        keeper: Checkpointer,
        run: RunDirectory,
        changed: Callable[[], None],
    ) -> None:
        """Brings back one job.

        Args:
            coordinator: The job.
            host: Shard 0.
            lines: To the other shards.
            keeper: Of the checkpoints.
            run: Where they are.
            changed: To be called when the job has changed.
        """
        self._coordinator, self._host, self._lines = coordinator, host, lines
        self._keeper, self._run, self._changed = keeper, run, changed
        self._task: asyncio.Task[None] | None = None

    def begin(self, resume: bool) -> None:
        """The process has started: what the run directory holds goes on, if it is wanted and there is anything."""
        coordinator = self._coordinator
        generation = self._run.begin_life()
        if resume and generation > 1:
            coordinator.begin_generation(generation, time.monotonic())
            self.joined()
        else:
            coordinator.generation = generation
            self._lines.send(pb.ShardCommand(generation=generation))
            self._run.traces.cut([0])

    def lost(self, shard: int) -> None:
        """A shard of another process is gone."""
        now, before = time.monotonic(), self._coordinator.generation
        self._keeper.abandon(now)
        self._coordinator.shard_lost(shard, now)
        if self._coordinator.generation != before:
            self._note_generation()

    def _note_generation(self) -> None:
        """Keeps the generation for the next start; the sessions of an earlier one end with the process in any case."""
        try:
            self._run.note_generation(self._coordinator.generation)
        except OSError as error:
            self._coordinator.notes.append(f"the generation cannot be written, the job goes on: {error}")

    def joined(self) -> None:
        """A shard has joined: perhaps it was the last that was missing."""
        coordinator = self._coordinator
        if coordinator.phase == Phase.RECOVERING and coordinator.shards.joined and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._restore(coordinator.generation))
            self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            self._coordinator.fail(f"the job cannot go on from its checkpoint: {task.exception()}")
        self.joined()  # for another generation, if one has begun meanwhile
        self._changed()

    async def _restore(self, generation: int) -> None:
        """Reads the newest checkpoint and gives every shard its part; without one, the job starts over.

        Raises:
            ValueError: The checkpoint is of another job.
            DownpourError: The same.
        """
        coordinator = self._coordinator
        while not await self._keeper.settled(0.05):
            pass
        found, refused = await asyncio.get_running_loop().run_in_executor(None, newest, self._run.checkpoints)
        if coordinator.generation != generation or coordinator.phase in OVER:
            return
        coordinator.notes.extend(refused)
        if found is None:
            self._run.traces.cut([0])
            restore_metrics(self._host.metrics, None)
            coordinator.start_over(time.monotonic())
            coordinator.notes.append("there is no checkpoint to go on from: the job starts over")
        else:
            self._put(found)
        self._changed()

    def _put(self, checkpoint: Checkpoint) -> None:
        coordinator = self._coordinator
        check_fits(checkpoint, coordinator)
        try:
            restore_job(coordinator, self._host.metrics, checkpoint.facts)
        except DownpourError as error:
            raise ValueError(str(error)) from error
        assert coordinator.layout is not None
        slices = coordinator.layout.cut(coordinator.settings.shards)
        each = shard_facts(checkpoint.facts, len(slices))
        self._run.traces.cut([each[shard].records for shard in range(len(slices))])
        coordinator.restored(checkpoint.facts.closed_epochs, time.monotonic())
        for shard, part in enumerate(slices):
            facts = pb.SnapshotInfo(**each[shard].model_dump())
            state = part_of(checkpoint, part, facts)
            if shard == 0:
                self._host.restore(state)
            else:
                commands = (pb.ShardCommand(restore=piece) for piece in pieces(state, checkpoint.number))
                self._lines.send_to(shard, commands)
        version, ledger = each[0].version, coordinator.ledger
        assert ledger is not None
        coordinator.notes.append(
            f"gone on from checkpoint {checkpoint.number}: version {version:,}, "
            f"{ledger.used_total:,} of {ledger.total:,} samples used"
        )
