"""The memory of large payloads, of which a limited number may be in use at one time."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np

from downpour.protos.frame import INLINE_BYTES


class LargePayloads:
    """Admits a limited number of requests whose payloads are large; the others wait in the order of their arrival.

    Memory is reused, as fresh pages cost as much as the copy into them.
    """

    def __init__(self, limit: int, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """Create a limit that has admitted no request yet.

        Args:
            limit: The number of requests that may be admitted at one time.
            call_soon: A function that calls its argument in a later turn of the event loop.
        """
        self._limit, self._call_soon = limit, call_soon
        self._admitted: set[Hashable] = set()
        self._waiting: dict[Hashable, Callable[[], None]] = {}
        self._spare: list[np.ndarray] = []

    def admit(self, owner: Hashable, then: Callable[[], None]) -> bool:
        """Return whether a request is admitted now; if not, `then` is called once it is."""
        if owner in self._admitted:
            return True
        if len(self._admitted) < self._limit:
            self._admitted.add(owner)
            return True
        self._waiting[owner] = then
        return False

    def leave(self, owner: Hashable) -> None:
        """Give up an admission, or the wait for one."""
        self._waiting.pop(owner, None)
        if owner not in self._admitted:
            return
        self._admitted.remove(owner)
        if self._waiting:
            successor = next(iter(self._waiting))
            self._admitted.add(successor)
            self._call_soon(self._waiting.pop(successor))

    def take(self, size_bytes: int) -> np.ndarray:
        """Return memory `uint8[n]` for a payload, n at least `size_bytes`."""
        memory = self._spare.pop() if self._spare else np.empty(0, np.uint8)
        return memory if len(memory) >= size_bytes else np.empty(size_bytes, np.uint8)

    def put_back(self, memory: np.ndarray) -> None:
        """Return memory that `take` returned and nothing refers to any more."""
        if len(self._spare) < self._limit:
            self._spare.append(memory)


class PayloadMemory:
    """The memory of the payloads of one connection: its own for small ones, that of `LargePayloads` for others."""

    def __init__(self, large: LargePayloads) -> None:
        """Create memory that holds no payload yet.

        Args:
            large: The memory of large payloads.
        """
        self._large = large
        self._own = np.empty(0, np.uint8)
        self._borrowed: np.ndarray | None = None

    def take(self, size_bytes: int) -> memoryview:
        """Return memory for a payload of `size_bytes`; a large one must have been admitted."""
        if size_bytes > INLINE_BYTES:
            self._borrowed = memory = self._large.take(size_bytes)
        else:
            if len(self._own) < size_bytes:
                self._own = np.empty(size_bytes, np.uint8)
            memory = self._own
        return memory.data[:size_bytes]

    def give_back(self) -> None:
        """Return the memory of a large payload, to which nothing refers any more."""
        if self._borrowed is not None:
            self._large.put_back(self._borrowed)
            self._borrowed = None
