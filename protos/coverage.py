"""The part of the weights that a push covers: its bitmap of tensors, and their places in the payload."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from downpour.protos.errors import InvalidRequest
from downpour.protos.layout import Layout, Slice, UpdateFlags


class CoveredRange(NamedTuple):
    """A range of elements that a push covers and that are updated alike.

    Attributes:
        start: The first element in the trained part of the shard's slice.
        stop: The element after the last one.
        at: The place of the first element in the payload.
        flags: How the elements are updated.
    """

    start: int
    stop: int
    at: int
    flags: UpdateFlags


@dataclass(frozen=True)
class Coverage:
    """The elements of one shard's slice that a push covers, and their places in the payload.

    Attributes:
        ranges: The covered elements, in ascending order.
        optimizers: The indices of the optimizers of the covered tensors, on all shards; ascending.
        trained: The number of trained elements of the slice, covered or not.
    """

    ranges: tuple[CoveredRange, ...]
    optimizers: tuple[int, ...]
    trained: int

    @classmethod
    def of(cls, bitmap: bytes, layout: Layout, part: Slice) -> Coverage:
        """Return the coverage of a push whose header has `bitmap` at the shard that owns `part`.

        Raises:
            InvalidRequest: The bitmap names no tensor, or one that the layout does not have.
        """
        tensors, start, at = layout.trained_tensors, 0, 0
        ranges: list[CoveredRange] = []
        chosen = covered_tensors(bitmap, len(tensors))
        for index, tensor in enumerate(tensors):
            first, last = (min(max(edge, part.start), part.stop) - part.start for edge in (start, start + tensor.size))
            start += tensor.size
            if index not in chosen or first == last:
                continue
            if ranges and ranges[-1].stop == first and ranges[-1].flags == tensor.flags:
                ranges[-1] = ranges[-1]._replace(stop=last)
            else:
                ranges.append(CoveredRange(first, last, at, tensor.flags))
            at += last - first
        return cls(tuple(ranges), tuple(sorted({tensors[index].flags.optimizer for index in chosen})), part.trained)

    @cached_property
    def size(self) -> int:
        """The number of covered elements of the slice."""
        return sum(each.stop - each.start for each in self.ranges)

    @cached_property
    def gaps(self) -> tuple[slice, ...]:
        """The elements of the slice that are not covered."""
        edges = [0, *(edge for each in self.ranges for edge in (each.start, each.stop)), self.trained]
        return tuple(slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)

    @cached_property
    def in_place(self) -> Coverage:
        """The same coverage for a payload that contains all elements of the slice."""
        return replace(self, ranges=tuple(each._replace(at=each.start) for each in self.ranges))

    def expand(self, covered: np.ndarray) -> np.ndarray:
        """Return the covered elements in a vector `float32[n]` of the slice that is 0 elsewhere."""
        whole = np.zeros(self.trained, np.float32)
        for each in self.ranges:
            whole[each.start : each.stop] = covered[each.at : each.at + each.stop - each.start]
        return whole

    def compress(self, whole: np.ndarray) -> np.ndarray:
        """Return the covered elements of a vector `float32[n]` of the slice."""
        parts = [whole[each.start : each.stop] for each in self.ranges]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)


def bitmap_of(tensors: Iterable[int], count: int) -> bytes:
    """Return the bitmap of a push that covers some of `count` trained tensors; empty if it covers all."""
    bits = sum(1 << index for index in set(tensors))
    return b"" if bits == (1 << count) - 1 else bits.to_bytes(-(-count // 8), "little")


def covered_tensors(bitmap: bytes, count: int) -> set[int]:
    """Return the indices of the covered ones of `count` trained tensors.

    Raises:
        InvalidRequest: The bitmap names no tensor, or one that the layout does not have.
    """
    if not bitmap:
        return set(range(count))
    bits = int.from_bytes(bitmap, "little")
    if len(bitmap) != -(-count // 8) or not bits or bits >> count:
        raise InvalidRequest(
            f"a push must cover some of the {count} trained tensors of the layout, as a bitmap of {-(-count // 8)} "
            f"bytes; received {len(bitmap)} bytes, {bitmap[:16].hex()}. Check that the worker's model is the job's."
        )
    return {index for index in range(count) if bits >> index & 1}
