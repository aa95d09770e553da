"""The coordinator's lines to its shards: a direct one to shard 0, a stream to each of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.ps.config import ServerSettings

Queue = asyncio.Queue[Iterator[pb.ShardCommand]]


class ShardLinks:
    """Sends every command to every shard in order; one that joins late first hears what still holds.

    Attributes:
        counts: The newest totals of the shards of other processes.
        stopped: Shards of other processes that have said goodbye.
    """

    def __init__(
        self,
        settings: ServerSettings,
        local: Callable[[pb.ShardCommand], None],
        joined: Callable[[pb.ShardAddress], None],
        event: Callable[[int, pb.ShardEvent], None],
        lost: Callable[[int], None],
    ) -> None:
        """No shard but the local one.

        Args:
            settings: Of the job; every shard is told.
            local: Takes commands to shard 0.
            joined: Takes a new shard in; may refuse it.
            event: Takes what a shard reports.
            lost: Told of a shard whose line broke.
        """
        self._settings, self._local, self._joined, self._event, self._lost = (
            settings,
            local,
            joined,
            event,
            lost,
        )
        self._queues: dict[int, Queue] = {}
        self._standing = pb.ShardCommand(settings=settings.model_dump_json())
        self.counts: dict[int, pb.ShardCounters] = {}
        self.stopped: set[int] = set()
        self._stopping = False
        local(self._standing)

    def send(self, command: pb.ShardCommand) -> None:
        """Sends a command to every shard."""
        self._stopping |= command.stop
        if command.settings:
            self._standing.settings = command.settings
        if command.HasField("learning_rates"):
            self._standing.learning_rates.CopyFrom(command.learning_rates)
        if command.HasField("layout"):
            self._standing.layout.CopyFrom(command.layout)
        if command.HasField("view"):
            self._standing.view.CopyFrom(command.view)
        if command.initialisation:
            self._standing.initialisation = command.initialisation
        if command.generation:
            self._standing.generation = command.generation
        for queue in self._queues.values():
            queue.put_nowait(iter([command]))
        self._local(command)

    def send_to(self, shard: int, commands: Iterator[pb.ShardCommand]) -> None:
        """Sends commands to one shard of another process; they are made when the line has room for them."""
        if shard in self._queues:
            self._queues[shard].put_nowait(commands)

    @property
    def all_stopped(self) -> bool:
        """Whether every shard of another process has said goodbye."""
        return self.stopped >= set(self._queues)

    async def follow(self, events: AsyncIterator[pb.ShardEvent]) -> AsyncIterator[pb.ShardCommand]:
        """Serves the stream of one shard until it ends.

        Raises:
            InvalidRequest: The stream does not begin with the shard's address, or an event is malformed.
        """
        first = await anext(aiter(events), None)
        if first is None or not first.HasField("joined"):
            raise InvalidRequest("a shard's stream must begin with its number and address; received something else.")
        shard = first.joined.shard
        if shard in self._queues:  # its line broke unnoticed, or it was started again before that was seen
            self._hang_up(shard, self._queues[shard])
        self._joined(first.joined)
        queue: Queue = asyncio.Queue()
        standing = pb.ShardCommand()
        standing.CopyFrom(self._standing)
        queue.put_nowait(iter([standing]))
        self._queues[shard] = queue
        self.stopped.discard(shard)
        listener = asyncio.create_task(self._listen(shard, queue, events))
        try:
            while shard not in self.stopped and self._queues.get(shard) is queue:
                getter = asyncio.create_task(queue.get())
                await asyncio.wait([getter, listener], return_when=asyncio.FIRST_COMPLETED)
                if not getter.done():
                    getter.cancel()
                    listener.result()  # raises what was wrong with an event
                    break
                for command in getter.result():
                    yield command
        finally:
            listener.cancel()
            self._hang_up(shard, queue)

    def _hang_up(self, shard: int, queue: Queue) -> None:
        """Ends a line; a shard that has not said goodbye is lost."""
        if self._queues.get(shard) is not queue or shard in self.stopped:
            return
        del self._queues[shard]
        queue.put_nowait(iter(()))
        self._lost(shard)

    async def _listen(self, shard: int, queue: Queue, events: AsyncIterator[pb.ShardEvent]) -> None:
        async for event in events:
            if self._queues.get(shard) is not queue:
                return
            if event.HasField("counters"):
                self.counts[shard] = event.counters
            if event.stopped and self._stopping:
                self.stopped.add(shard)
            self._event(shard, event)
