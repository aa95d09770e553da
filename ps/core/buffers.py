"""A pool of flat buffers. A committed buffer is immutable until its last holder releases it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from downpour.protos.shared_memory import memfd


class Memory(NamedTuple):
    """One vector `float32[n]` and its offset in the memory that workers map, in bytes."""

    array: np.ndarray
    offset: int = 0


class Buffer:
    """One flat vector `float32[n]` with a reference count.

    Attributes:
        array: The vector.
        offset: Its offset in shared memory, in bytes.
        holders: The number of its holders.
        pool: The pool that it returns to.
    """

    __slots__ = ("array", "offset", "holders", "pool")

    def __init__(self, array: np.ndarray, offset: int, pool: Pool) -> None:
        """Wrap the memory of a buffer that has no holder yet."""
        self.array, self.offset, self.pool = array, offset, pool
        self.holders = 0


class Pool:
    """Buffers of one size, which are reused when they have no holder.

    Attributes:
        allocated: The number of buffers created so far, which is the largest number held at one time.
    """

    def __init__(self, size: int, allocate: Callable[[], Memory] | None = None) -> None:
        """Create an empty pool of buffers `float32[size]`.

        Args:
            size: The number of elements of a buffer.
            allocate: A function that returns the memory of another buffer (default: from the heap).
        """
        self.size = size
        self.allocated = 0
        self._new = allocate or (lambda: Memory(np.empty(size, np.float32)))
        self._spare: list[Buffer] = []

    def take(self) -> Buffer:
        """Return a buffer with arbitrary content, which the caller holds once."""
        buffer = self._spare.pop() if self._spare else self._allocate()
        buffer.holders = 1
        return buffer

    def hold(self, buffer: Buffer) -> Buffer:
        """Add a holder, and return the buffer."""
        buffer.holders += 1
        return buffer

    def drop(self, buffer: Buffer) -> None:
        """Remove a holder. Without holders, the buffer returns to the pool."""
        buffer.holders -= 1
        if buffer.holders == 0:
            self._spare.append(buffer)

    def _allocate(self) -> Buffer:
        self.allocated += 1
        return Buffer(*self._new(), self)


class Arena:
    """Memory for the buffers of one shard, which workers on this host map read-only.

    It is one sparse memfd that doubles when it is full: a page uses no memory until its buffer is written to.

    Attributes:
        descriptor: A read-only file descriptor of the memory, to be sent to workers.
    """

    def __init__(self, size: int) -> None:
        """Create a memory that initially has room for four vectors `float32[size]`."""
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
        """Return the memory of another vector."""
        if not self._free:
            self._grow(max(4, self._capacity))
        return self._free.pop()

    def close(self) -> None:
        """Close the descriptors. Mapped memory remains valid while it is used."""
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
    """The committed buffers that workers compute gradients from, one or a few per worker."""

    def __init__(self, pool: Pool, limit: int, depth: int = 1) -> None:
        """Create a collection that holds no buffers.

        Args:
            pool: The pool of the buffers.
            limit: The largest number of buffers to hold. Versions beyond it are not kept.
            depth: The number of pulls of one worker that are kept: 2 if it computes while a pull is in flight.
        """
        self._pool, self._limit, self._depth = pool, limit, depth
        self._pulled: dict[int, list[int]] = {}  # by worker, newest last
        self._held: dict[int, tuple[Buffer, int]] = {}  # by version, with the number of workers

    @property
    def kept(self) -> int:
        """The number of buffers held."""
        return len(self._held)

    def pulled(self, worker: int, version: int, buffer: Buffer) -> None:
        """Keep the version that a worker pulls, in place of its oldest one."""
        versions = self._pulled.setdefault(worker, [])
        if versions and versions[-1] == version:
            return
        if len(versions) == self._depth:
            self._release(versions.pop(0))
        held = self._held.get(version)
        if held is None and len(self._held) >= self._limit:
            return
        versions.append(version)
        self._held[version] = (held[0], held[1] + 1) if held else (self._pool.hold(buffer), 1)

    def leave(self, worker: int) -> None:
        """Release the versions that a worker has pulled."""
        for version in self._pulled.pop(worker, []):
            self._release(version)

    def get(self, version: int) -> np.ndarray | None:
        """Return the weights of a version; None if they are not kept."""
        held = self._held.get(version)
        return held[0].array if held else None

    def _release(self, version: int) -> None:
        buffer, workers = self._held[version]
        if workers > 1:
            self._held[version] = (buffer, workers - 1)
        else:
            del self._held[version]
            self._pool.drop(buffer)
