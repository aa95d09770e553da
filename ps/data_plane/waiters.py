"""Workers whose reply must wait until their next step may start, with a future of the weights for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.core.buffers import Buffer
from downpour.ps.core.shard import Shard

HeldWeights = tuple[Buffer, int]  # a buffer that is held once for the receiver, and its version


class Waiters:
    """The waiting workers of one shard, which are checked again when the shard has changed."""

    def __init__(self) -> None:
        """Create a collection without waiting workers."""
        self._waiting: dict[int, tuple[asyncio.Future[HeldWeights], Callable[[], HeldWeights]]] = {}
        self._state: tuple[int, int, int] | None = None

    @property
    def workers(self) -> list[int]:
        """Return the numbers of the workers that wait."""
        return list(self._waiting)

    def may_answer(self, shard: Shard, header: pb.Request) -> bool:
        """Return whether the reply to a push may be sent now."""
        return shard.may_proceed(header.worker)

    def add(self, worker: int, take: Callable[[], HeldWeights]) -> asyncio.Future[HeldWeights]:
        """Return a future of the result of `take`, which is called once the worker may proceed."""
        ready: asyncio.Future[HeldWeights] = asyncio.get_running_loop().create_future()
        self._waiting[worker] = (ready, take)
        return ready

    def release(self, shard: Shard | None) -> None:
        """Complete the futures of the workers that may proceed now."""
        if not self._waiting or shard is None or shard.gate_state == self._state:
            return
        self._state = shard.gate_state
        for worker in [worker for worker in self._waiting if shard.may_proceed(worker)]:
            ready, take = self._waiting.pop(worker)
            if not ready.done():
                ready.set_result(take())

    def recheck(self) -> None:
        """Check all workers at the next call of `release`, even if the shard has not changed since."""
        self._state = None
