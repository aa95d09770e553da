"""Executes the coordinator's commands on a shard: settings, views, generations, pins, cuts and restored states."""

from __future__ import annotations

import asyncio

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.system import clock
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.data_plane.snapshot import Assembly, ShardState
from downpour.ps.trace.call_log import Call


class ShardCommands:
    """Executes commands in order and appends the resulting events to the shard's outbox.

    Attributes:
        stopped: An event that is set once the coordinator has sent the command to stop.
    """

    def __init__(self, runtime: ShardRuntime) -> None:
        """Create an executor of the coordinator's commands to one shard.

        Args:
            runtime: The shard.
        """
        self._runtime = runtime
        self.stopped = asyncio.Event()
        self._assembly: Assembly | None = None

    def execute(self, command: pb.ShardCommand) -> None:
        """Execute every part of a command."""
        runtime = self._runtime
        if command.settings:
            runtime.builder.set_settings(command.settings, built=runtime.shard is not None)
        if command.optimizers:
            runtime.builder.set_optimizers(command.optimizers)
            runtime.records.settle()
            if not command.restored_call:
                runtime.metrics.begin_fit()
        if command.learning_rates and command.optimizers:
            runtime.builder.set_rates(command.learning_rates)
        elif command.learning_rates:
            runtime.set_rates(command.learning_rates)
        if command.generation:
            self._begin_generation(command.generation, command.next_call)
        if command.HasField("layout"):
            runtime.builder.set_layout(command.layout)
        if command.HasField("view"):
            self._adopt(command.view)
        if command.initialisation > runtime.initialisation:  # after the view, in which the worker is no longer a member
            runtime.void_weights(command.initialisation)
        self._change_weights(command)
        if command.hold:
            runtime.emit(held=runtime.cut.hold(command.hold))
        if command.HasField("cut"):
            runtime.cut.set_targets(command.cut)
            runtime.try_cut()
        if command.HasField("restore"):
            self._assemble(command.restore)
        if command.stop:
            self.stopped.set()

    def _change_weights(self, command: pb.ShardCommand) -> None:
        runtime, shard = self._runtime, self._runtime.shard
        if shard is None:
            return
        if command.flush and not runtime.calls.drives:
            shard.flush()
            runtime.calls.add(Call.FLUSH)
            runtime.waiters.release(shard)
        if command.pin:
            shard.pin(command.pin)
            runtime.emit(pinned=command.pin)
        if command.unpin:
            shard.unpin(command.unpin)

    # ------------------------------------------------------------------ views

    def _adopt(self, view: pb.View) -> None:
        """Replace the members by those of a newer view."""
        runtime, new = self._runtime, {member.session: member for member in view.members}
        for session, member in runtime.members.items():
            if session not in new:
                self._remove(member)
        for session, member in new.items():
            self._admit(member, runtime.members.get(session))
        runtime.set_members(new)
        runtime.try_cut()
        runtime.waiters.release(runtime.shard)
        runtime.emit(view_seen=view.number)

    def _remove(self, member: pb.Member) -> None:
        runtime = self._runtime
        if runtime.shard:
            runtime.shard.leave(member.worker)
            runtime.calls.add(Call.LEAVE, member.worker)
        runtime.emit(departed=runtime.cut.departed(member))
        runtime.session_buffers.release(member.session)

    def _admit(self, member: pb.Member, before: pb.Member | None) -> None:
        """Update the shard from an earlier view of a member to the newest one."""
        runtime, shard = self._runtime, self._runtime.shard
        if shard is None:
            return
        if before is None:
            runtime.join(shard, member, member.resting)
        elif runtime.calls.drives:
            return
        elif member.resting and not before.resting:
            shard.rest(member.worker)
            runtime.calls.add(Call.REST, member.worker)
        elif not member.resting and member.worker not in shard.consistency.clocks:
            shard.resume(member.worker)
            runtime.calls.add(Call.RESUME, member.worker)

    # ------------------------------------------------------------------ generations and restored states

    def _begin_generation(self, generation: int, next_call: bool) -> None:
        """End everything of an earlier generation: sessions, a cut under way, and weights that are not restored.

        The next call of a script's `fit` undoes nothing of the last one.
        """
        runtime = self._runtime
        for session, member in runtime.members.items():
            runtime.session_buffers.release(session)
            if runtime.shard is not None:
                runtime.shard.leave(member.worker)
        runtime.set_members({})
        runtime.waiters.recheck()
        runtime.waiters.release(runtime.shard)
        runtime.cut.clear()
        self._assembly = None
        if not next_call:
            runtime.records.drop()
        runtime.calls.pause() if next_call else runtime.calls.end()
        runtime.set_generation(generation)

    def _assemble(self, part: pb.SnapshotPart) -> None:
        if self._assembly is None:
            sizes = self._runtime.builder.state_sizes().items()
            self._assembly = Assembly({name: np.empty(size, np.float32) for name, size in sizes})
        state = self._assembly.feed(part)
        if state is not None:
            self._assembly = None
            self.restore(state)

    def restore(self, state: ShardState) -> None:
        """Restore the shard to a state, as the generation that has begun; later pushes are forgotten.

        Raises:
            ValueError: The state belongs to another optimizer, or has another size.
        """
        self._runtime.records.settle()
        self._runtime.records.continue_from(clock.monotonic() - state.facts.time_s)
        self._runtime.records.go_back(state.facts.records)
        self._runtime.put(state)
