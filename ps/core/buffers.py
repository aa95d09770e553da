"""A pool of flat buffers: what is committed is immutable until its last reader lets go."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from downpour.protos import memfd


class Memory(NamedTuple):
    """One vector `float32[n]` and where it begins in the memory that workers map, in bytes."""

    array: np.ndarray
    offset: int = 0


class Buffer:
    """One flat vector `float32[n]` and the number of its holders.

    Attributes:
        offset: Where it begins in shared memory, in bytes.
        pool: That it goes back to.
    """

    __slots__ = ("array", "offset", "holders", "pool")

    def __init__(self, array: np.ndarray, offset: int, pool: Pool) -> None:
        """Wraps the memory; nobody holds it yet."""
        self.array, self.offset, self.pool = array, offset, pool
        self.holders = 0


class Pool:
    """Buffers of one size, used again once nobody holds them.

    Attributes:
        allocated: Buffers made so far: the most that were held at one time.
    """

    def __init__(self, size: int, allocate: Callable[[], Memory] | None = None) -> None:
        """An empty pool of buffers `float32[size]`.

        Args:
            size: Elements of each.
            allocate: Gives the memory of another one (default: from the heap).
        """
        self.size = size
        self.allocated = 0
        self._new = allocate or (lambda: Memory(np.empty(size, np.float32)))
        self._spare: list[Buffer] = []

    def take(self) -> Buffer:
        """A buffer with any content, held once by the caller."""
        buffer = self._spare.pop() if self._spare else self._allocate()
        buffer.holders = 1
        return buffer

    def hold(self, buffer: Buffer) -> Buffer:
        """Adds a holder."""
        buffer.holders += 1
        return buffer

    def drop(self, buffer: Buffer) -> None:
        """Takes a holder away; the last one gives the buffer back."""
        buffer.holders -= 1
        if buffer.holders == 0:
            self._spare.append(buffer)

    def _allocate(self) -> Buffer:
        self.allocated += 1
        return Buffer(*self._new(), self)


class Arena:
    """Memory for the buffers of one shard, which workers on this host map and may only read.

    One sparse memory that doubles when it is full: a page costs nothing until its buffer is written to.

    Attributes:
        descriptor: Through which the memory can only be read; to be sent to workers.
    """

    def __init__(self, size: int) -> None:
        """Room for four vectors `float32[size]` at first."""
        self._size = size
        self._stride = -(-4 * size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self._free: list[Memory] = []
        self._capacity = 0
        self._fd = memfd.create("downpour-weights", 0, may_grow=True)
        try:
            self.descriptor = memfd.read_only(self._fd)
        except OSError:
            os.close(self._fd)
            raise

    def allocate(self) -> Memory:
        """Another vector."""
        if not self._free:
            self._grow(max(4, self._capacity))
        return self._free.pop()

    def close(self) -> None:
        """Gives the descriptors back; what is mapped stays until nobody uses it."""
        os.close(self._fd)
        os.close(self.descriptor)

    def _grow(self, count: int) -> None:
        start, length = self._capacity * self._stride, count * self._stride
        os.ftruncate(self._fd, start + length)
        mapped = mmap.mmap(self._fd, length, mmap.MAP_SHARED, offset=start)
        for at in range((count - 1) * self._stride, -1, -self._stride):
            self._free.append(Memory(np.frombuffer(mapped, np.float32, self._size, at), start + at))
        self._capacity += count


class Versions:
    """The committed buffers that workers compute gradients from, one or a few for each worker."""

    def __init__(self, pool: Pool, limit: int, depth: int = 1) -> None:
        """Holds nothing.

        Args:
            pool: That the buffers come from.
            limit: The most buffers to hold: a version beyond it is not kept.
            depth: Pulls of one worker whose buffers are kept: 2 where it computes while a pull is under way.
        """
        self._pool, self._limit, self._depth = pool, limit, depth
        self._pulled: dict[int, list[int]] = {}  # by worker, newest last
        self._held: dict[int, tuple[Buffer, int]] = {}  # by version, with the number of workers

    @property
    def kept(self) -> int:
        """Buffers held now."""
        return len(self._held)

    def pulled(self, worker: int, version: int, buffer: Buffer) -> None:
        """Keeps what a worker pulls in place of what it pulled before."""
        versions = self._pulled.setdefault(worker, [])
        if versions and versions[-1] == version:
            return
        if len(versions) == self._depth:
            self._let_go(versions.pop(0))
        held = self._held.get(version)
        if held is None and len(self._held) >= self._limit:
            return
        versions.append(version)
        self._held[version] = (held[0], held[1] + 1) if held else (self._pool.hold(buffer), 1)

    def leave(self, worker: int) -> None:
        """Lets go what a worker has pulled."""
        for version in self._pulled.pop(worker, []):
            self._let_go(version)

    def get(self, version: int) -> np.ndarray | None:
        """The weights of a version; None if they are not kept."""
        held = self._held.get(version)
        return held[0].array if held else None

    def _let_go(self, version: int) -> None:
        buffer, workers = self._held[version]
        if workers > 1:
            self._held[version] = (buffer, workers - 1)
        else:
            del self._held[version]
            self._pool.drop(buffer)
