"""Delivers the coordinator's commands to the shards and the shards' events to the coordinator, in order.

Each of them appends to an outbox, and every turn of the event loop that may have filled one ends with
`Effects.deliver`, which empties both before a reply leaves or the next request is taken. The one direct call is that of
shard 0 to the leases of the job (`LeaseLedger`), which gives no command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.system import clock
from downpour.ps.control_plane.checkpointer import Checkpointer
from downpour.ps.control_plane.replay_recorder import ReplayRecorder
from downpour.ps.control_plane.shard_link import ShardLinks
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.core.push import Push
from downpour.ps.data_plane.shard_commands import ShardCommands
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.data_plane.snapshot import ShardState, Snapshot, parts


class JobChange:
    """Lets coroutines wait until a condition on the state of the job holds."""

    def __init__(self) -> None:
        """Create an object on which no coroutine waits yet."""
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake all coroutines that wait for a change of the job."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait_until(self, condition: Callable[[], bool], wait_s: float) -> bool:
        """Wait until a condition holds, at most `wait_s`; return whether it does.

        The condition may change the job itself: then it is checked again.
        """
        deadline = clock.monotonic() + wait_s
        while True:
            event = self._event
            if condition():
                return True
            left_s = deadline - clock.monotonic()
            if left_s <= 0:
                return False
            try:
                await asyncio.wait_for(event.wait(), left_s)
            except TimeoutError:
                return condition()


class LeaseLedger:
    """Lets shard 0 ask the coordinator whether pushes for leased samples count."""

    def __init__(self, coordinator: Coordinator) -> None:
        """Create the ledger of a job."""
        self._coordinator = coordinator

    def check(self, push: Push) -> None:
        """Raise InvalidRequest unless the worker may use the samples of the push now."""
        ledger = self._coordinator.work.ledger
        assert ledger is not None
        ledger.check(push.lease, push.worker, push.epoch, push.start, push.stop)

    def used(self, push: Push) -> None:
        """Mark the samples of a push as used."""
        self._coordinator.samples_used(push.worker, push.lease, push.epoch, push.start, push.stop, clock.monotonic())

    @property
    def draining(self) -> bool:
        """Return whether workers must stop after the batch that they have."""
        return self._coordinator.draining


class Effects:
    """Delivers commands to the shards and events to the coordinator; no other object does."""

    def __init__(
        self,
        coordinator: Coordinator,
        runtime: ShardRuntime,
        links: ShardLinks,
        checkpointer: Checkpointer,
        recorder: ReplayRecorder,
        change: JobChange,
    ) -> None:
        """Connect the parts of a job.

        Args:
            coordinator: The coordinator of the job.
            runtime: The runtime of shard 0.
            links: The links to the other shards.
            checkpointer: Takes the states of shards for a cut.
            recorder: The writer of other shards' traces and of the files that replay needs.
            change: The object to notify whenever a command or an event was delivered.
        """
        self._coordinator, self._runtime, self._links, self._change = coordinator, runtime, links, change
        self._commands = ShardCommands(runtime)
        self._checkpointer, self._recorder = checkpointer, recorder

    def deliver(self) -> None:
        """Deliver commands and events until there are none left."""
        events, commands = self._runtime.outbox, self._coordinator.job.outbox
        if not events and not commands and self._coordinator.work.committed:
            return
        while events or commands or self._checkpointer.commit(clock.monotonic()):
            if events:
                self._take(events.popleft())
            else:
                command = commands.popleft()
                self._links.send(command)
                self._commands.execute(command)
        self._change.notify()

    def shard_event(self, shard: int, event: pb.ShardEvent) -> None:
        """Process an event of another shard, and deliver the resulting commands.

        Raises:
            InvalidRequest: The event is malformed.
        """
        self._event(shard, event)
        self.deliver()
        self._change.notify()

    def restore(self, shard: int, state: ShardState, number: int) -> None:
        """Restore a shard to its part of the checkpoint of that number.

        Raises:
            ValueError: The state belongs to another optimizer, or has another size.
        """
        if shard == 0:
            self._commands.restore(state)
        else:
            self._links.send_to(shard, (pb.ShardCommand(restore=part) for part in parts(state, number)))

    def _take(self, output: pb.ShardEvent | Snapshot) -> None:
        if isinstance(output, pb.ShardEvent):
            self._event(0, output)
        elif output.number:
            self._checkpointer.take_state(output.number, output.state)
        else:
            self._recorder.take_initial_state(output.state)

    def _event(self, shard: int, event: pb.ShardEvent) -> None:
        if event.generation and event.generation != self._coordinator.job.generation:
            if event.generation >= self._coordinator.job.first_generation:  # of an earlier call of `fit`
                self._recorder.event(shard, event)
            return  # its events describe a state that is void
        now = clock.monotonic()
        self._recorder.event(shard, event)
        self._coordinator.shard_event(shard, event, now)
        self._checkpointer.event(shard, event, now)
