"""Those who wait until their next step may start: a future each, of the weights for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ps.buffers import Buffer
from ps.shard import Shard

Pulled = tuple[Buffer, int]  # held once for the receiver, with its version


class Gates:
    """The gates of one shard's workers; closed ones are looked at again when something has moved."""

    def __init__(self, answer: Callable[[Shard, int], Pulled]) -> None:
        """All open.

        Args:
            answer: Takes the weights that a worker computes from next.
        """
        self._answer = answer
        self._closed: dict[int, tuple[asyncio.Future[Pulled], bool]] = {}
        self._state: tuple[int, int, int] | None = None

    @property
    def closed(self) -> list[int]:
        """Workers that wait."""
        return list(self._closed)

    def enter(self, shard: Shard, worker: int, fetch: bool = True) -> asyncio.Future[Pulled]:
        """A future of the weights for the worker when it may proceed; it holds them.

        Args:
            shard: Whose mode decides.
            worker: Whose push was counted.
            fetch: Whether it will compute from them.
        """
        gate: asyncio.Future[Pulled] = asyncio.get_running_loop().create_future()
        if shard.may_proceed(worker):
            gate.set_result(self._answer(shard, worker) if fetch else shard.pull())
        else:
            self._closed[worker] = (gate, fetch)
        return gate

    def look(self, shard: Shard | None) -> None:
        """Opens those whose workers may proceed now."""
        if not self._closed or shard is None or shard.gate_state == self._state:
            return
        self._state = shard.gate_state
        for worker in [worker for worker in self._closed if shard.may_proceed(worker)]:
            gate, fetch = self._closed.pop(worker)
            if not gate.done():
                gate.set_result(self._answer(shard, worker) if fetch else shard.pull())

    def forget(self) -> None:
        """Looks at all of them next time, whatever has moved since."""
        self._state = None
