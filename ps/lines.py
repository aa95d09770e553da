"""The coordinator's lines to its shards: a direct one to shard 0, a stream to each of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from protos import parameter_server_pb2 as pb
from protos.errors import InvalidRequest, JobConflict
from ps.config import ServerSettings

Queue = asyncio.Queue[pb.ShardCommand]


class ShardLines:
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
        self.counts: dict[int, pb.ShardCount] = {}
        self.stopped: set[int] = set()
        local(self._standing)

    def send(self, command: pb.ShardCommand) -> None:
        """Sends a command to every shard."""
        if command.HasField("layout"):
            self._standing.layout.CopyFrom(command.layout)
        if command.HasField("view"):
            self._standing.view.CopyFrom(command.view)
        for queue in self._queues.values():
            queue.put_nowait(command)
        self._local(command)

    @property
    def all_stopped(self) -> bool:
        """Whether every shard of another process has said goodbye."""
        return self.stopped >= set(self._queues)

    async def follow(self, events: AsyncIterator[pb.ShardEvent]) -> AsyncIterator[pb.ShardCommand]:
        """Serves the stream of one shard until it ends.

        Raises:
            InvalidRequest: The stream does not begin with the shard's address.
            JobConflict: That shard is there already.
        """
        first = await anext(aiter(events), None)
        if first is None or not first.HasField("joined"):
            raise InvalidRequest(
                "a shard's stream must begin with its number and address; received something else."
            )
        shard = first.joined.shard
        if shard in self._queues:
            raise JobConflict(f"shard {shard} has joined already: start another number.")
        self._joined(first.joined)
        queue: Queue = asyncio.Queue()
        queue.put_nowait(self._standing)
        self._queues[shard] = queue
        listener = asyncio.create_task(self._listen(shard, events))
        try:
            while shard not in self.stopped:
                getter = asyncio.create_task(queue.get())
                await asyncio.wait([getter, listener], return_when=asyncio.FIRST_COMPLETED)
                if not getter.done():
                    getter.cancel()
                    break
                yield getter.result()
        finally:
            listener.cancel()
            if shard not in self.stopped:
                self._lost(shard)

    async def _listen(self, shard: int, events: AsyncIterator[pb.ShardEvent]) -> None:
        async for event in events:
            if event.HasField("count"):
                self.counts[shard] = event.count
            if event.stopped:
                self.stopped.add(shard)
            self._event(shard, event)
