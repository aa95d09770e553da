"""Those who wait until their next step may start: a future each, of the weights for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from downpour.ps.core.buffers import Buffer
from downpour.ps.core.shard import Shard

Pulled = tuple[Buffer, int]  # held once for the receiver, with its version


class Waiters:
    """The closed gates of one shard's workers; they are looked at again when something has moved."""

    def __init__(self) -> None:
        """All open."""
        self._closed: dict[int, tuple[asyncio.Future[Pulled], Callable[[], Pulled]]] = {}
        self._state: tuple[int, int, int] | None = None

    @property
    def closed(self) -> list[int]:
        """Workers that wait."""
        return list(self._closed)

    def enter(self, worker: int, take: Callable[[], Pulled]) -> asyncio.Future[Pulled]:
        """A future of what `take` gives once the worker may proceed."""
        gate: asyncio.Future[Pulled] = asyncio.get_running_loop().create_future()
        self._closed[worker] = (gate, take)
        return gate

    def look(self, shard: Shard | None) -> None:
        """Opens those whose workers may proceed now."""
        if not self._closed or shard is None or shard.gate_state == self._state:
            return
        self._state = shard.gate_state
        for worker in [worker for worker in self._closed if shard.may_proceed(worker)]:
            gate, take = self._closed.pop(worker)
            if not gate.done():
                gate.set_result(take())

    def forget(self) -> None:
        """Looks at all of them next time, whatever has moved since."""
        self._state = None
