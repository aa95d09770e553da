"""The coordinator's links to the shards of other processes: a stream of commands and events to each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.access.job_tokens import is_loopback
from downpour.protos.errors import InvalidRequest
from downpour.protos.settings import reachable

Queue = asyncio.Queue[Iterator[pb.ShardCommand]]
STANDING = (
    "job",
    "settings",
    "layout",
    "view",
    "generation",
    "initialisation",
    "learning_rates",
    "optimizers",
)  # fields that remain valid until replaced


class ShardLinks:
    """Sends every command to every shard in order; a shard that joins late first receives the commands still valid.

    Attributes:
        counts: The newest totals of the shards of other processes.
        stopped: The shards of other processes that have confirmed the command to stop.
    """

    def __init__(
        self,
        joined: Callable[[pb.ShardAddress], None],
        event: Callable[[int, pb.ShardEvent], None],
        lost: Callable[[int], None],
    ) -> None:
        """Create links of which none is connected.

        Args:
            joined: A callback that receives the address of a new shard; may raise to refuse it.
            event: A callback that receives each event of a shard.
            lost: A callback that receives the number of a shard whose stream broke.
        """
        self._joined, self._event, self._lost = joined, event, lost
        self._queues: dict[int, Queue] = {}
        self._standing = pb.ShardCommand()
        self.counts: dict[int, pb.ShardCounters] = {}
        self.stopped: set[int] = set()
        self._stopping = False

    def send(self, command: pb.ShardCommand) -> None:
        """Send a command to every shard of another process."""
        self._stopping |= command.stop
        if command.generation:
            self._standing.ClearField("initialisation")  # which every generation counts from 0
        for field, value in command.ListFields():
            if field.name in STANDING:
                self._standing.ClearField(field.name)
                self._standing.MergeFrom(pb.ShardCommand(**{field.name: value}))
        for queue in self._queues.values():
            queue.put_nowait(iter([command]))

    def send_to(self, shard: int, commands: Iterator[pb.ShardCommand]) -> None:
        """Send commands to one shard; they are created when the stream has room for them."""
        if shard in self._queues:
            self._queues[shard].put_nowait(commands)

    @property
    def unconfirmed(self) -> list[int]:
        """Return the connected shards of other processes that have not confirmed the command to stop."""
        return sorted(set(self._queues) - self.stopped)

    async def serve(self, events: AsyncIterator[pb.ShardEvent], peer: str = "") -> AsyncIterator[pb.ShardCommand]:
        """Serve the stream of one shard until it ends.

        Args:
            events: The events of the shard.
            peer: The host that the stream comes from; empty if it is this machine.

        Raises:
            InvalidRequest: The stream does not begin with the shard's address, or an event is malformed.
        """
        first = await anext(aiter(events), None)
        if first is None or not first.HasField("joined"):
            raise InvalidRequest("a shard's stream must begin with its number and address; received something else.")
        shard = first.joined.shard
        if shard in self._queues:  # its stream broke unnoticed, or it was started again before that was noticed
            self._disconnect(shard, self._queues[shard])
        if peer and is_loopback(first.joined.address) and not _is_own(peer):
            raise InvalidRequest(
                f"a shard on another machine than the coordinator must listen on an address that workers reach; "
                f"received {first.joined.address} from {peer}. Start it with --bind 0.0.0.0:PORT or its own address."
            )
        address = pb.ShardAddress(address=reachable(first.joined.address, peer))
        first.joined.MergeFrom(address)
        self._joined(first.joined)
        queue: Queue = asyncio.Queue()
        standing = pb.ShardCommand()
        standing.CopyFrom(self._standing)
        queue.put_nowait(iter([standing]))
        self._queues[shard] = queue
        self.stopped.discard(shard)
        receiver = asyncio.create_task(self._receive(shard, queue, events))
        try:
            while shard not in self.stopped and self._queues.get(shard) is queue:
                getter = asyncio.create_task(queue.get())
                await asyncio.wait([getter, receiver], return_when=asyncio.FIRST_COMPLETED)
                if not getter.done():
                    getter.cancel()
                    receiver.result()  # raises the error that an event has caused
                    break
                for command in getter.result():
                    yield command
        finally:
            receiver.cancel()
            self._disconnect(shard, queue)

    def _disconnect(self, shard: int, queue: Queue) -> None:
        """End a stream; a shard that has not confirmed the command to stop is lost."""
        if self._queues.get(shard) is not queue or shard in self.stopped:
            return
        del self._queues[shard]
        queue.put_nowait(iter(()))
        self._lost(shard)

    async def _receive(self, shard: int, queue: Queue, events: AsyncIterator[pb.ShardEvent]) -> None:
        async for event in events:
            if self._queues.get(shard) is not queue:
                return
            if event.HasField("counters"):
                self.counts[shard] = event.counters
            if event.stopped and self._stopping:
                self.stopped.add(shard)
            self._event(shard, event)


def _is_own(host: str) -> bool:
    """Return whether a host is an address of this machine."""
    try:
        with socket.create_server((host.strip("[]"), 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return True
    except OSError:
        return False
