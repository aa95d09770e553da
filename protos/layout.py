"""The place of each tensor of a model in one flat vector, and the cut of that vector into shards.

The vector holds the trained tensors first, then the state (floating-point tensors that gradients do not
train). Shard k of K owns an equal contiguous range of the trained part; shard 0 owns the state as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest

TRAINED, STATE = pb.TRAINED, pb.STATE
MOST_DIMENSIONS = 32  # of a received tensor: computing the size of one with many more takes long


@dataclass(frozen=True)
class Tensor:
    """One tensor of the model: its name, its shape and the section that it belongs to."""

    name: str
    shape: tuple[int, ...]
    section: int = TRAINED

    @property
    def size(self) -> int:
        """The number of elements of the tensor."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        """Return the tensor as error messages show it."""
        kind = "" if self.section == TRAINED else ", not trained"
        return f"{self.name!r} {list(self.shape)}{kind}"


@dataclass(frozen=True)
class Slice:
    """The part of one shard: `flat[start:stop]` of the trained part and, on shard 0, `state` more elements."""

    start: int
    stop: int
    state: int

    @cached_property
    def trained(self) -> int:
        """Trained elements on this shard."""
        return self.stop - self.start

    @cached_property
    def size(self) -> int:
        """All elements on this shard."""
        return self.trained + self.state


@dataclass(frozen=True)
class Layout:
    """The tensors of a model in the order in which the flat vector holds them.

    Raises:
        InvalidRequest: On construction, if a name occurs twice, nothing is trained, or state precedes a
            trained tensor.
    """

    tensors: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        """Check the invariants of the class."""
        names = Counter(tensor.name for tensor in self.tensors)
        twice = next((name for name, count in names.items() if count > 1), None)
        if twice is not None:
            raise InvalidRequest(f"every tensor needs a name of its own; received {twice!r} twice. Name the layers.")
        if not self.trained:
            raise InvalidRequest("a model must have at least one trained weight; received none.")
        sections = [tensor.section for tensor in self.tensors]
        if sections != sorted(sections) or not set(sections) <= {TRAINED, STATE}:
            raise InvalidRequest(f"a layout lists trained tensors first, then state; received sections {sections}.")

    @cached_property
    def trained(self) -> int:
        """Number of trained elements, n."""
        return sum(tensor.size for tensor in self.tensors if tensor.section == TRAINED)

    @cached_property
    def state(self) -> int:
        """Number of state elements, m."""
        return sum(tensor.size for tensor in self.tensors if tensor.section == STATE)

    @property
    def size(self) -> int:
        """Length of the flat vector, n + m."""
        return self.trained + self.state

    def cut(self, shards: int) -> list[Slice]:
        """Cut the trained part into `shards` contiguous ranges whose lengths differ by at most one.

        Raises:
            InvalidRequest: There are more shards than trained elements, or none.
        """
        if not 1 <= shards <= self.trained:
            raise InvalidRequest(
                f"the number of shards must lie between 1 and the number of trained weights, {self.trained}; "
                f"received {shards}. Use fewer shards."
            )
        edges = [self.trained * k // shards for k in range(shards + 1)]
        return [Slice(edges[k], edges[k + 1], self.state if k == 0 else 0) for k in range(shards)]

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Return views of the tensors in a flat vector `float32[n + m]`, by name."""
        views, offset = {}, 0
        for tensor in self.tensors:
            views[tensor.name] = flat[offset : offset + tensor.size].reshape(tensor.shape)
            offset += tensor.size
        return views

    def fits(self, other: Layout) -> bool:
        """Return whether both flat vectors have tensors of equal shapes in the same places; their names may differ."""
        return [(t.shape, t.section) for t in self.tensors] == [(t.shape, t.section) for t in other.tensors]

    def difference(self, other: Layout) -> str | None:
        """Name the first tensor in which `other` differs from this layout; None if they are equal."""
        for index, (ours, theirs) in enumerate(zip(self.tensors, other.tensors, strict=False)):
            if ours != theirs:
                return f"tensor {index} must be {ours}; received {theirs}"
        if len(self.tensors) == len(other.tensors):
            return None
        longer = self if len(self.tensors) > len(other.tensors) else other
        index = min(len(self.tensors), len(other.tensors))
        extra = longer.tensors[index]
        verb = "lacks" if longer is self else "has in addition"
        return f"the job has {len(self.tensors)} tensors; received {len(other.tensors)}, which {verb} {extra}"

    def to_proto(self) -> pb.Layout:
        """Return the layout as a message."""
        return pb.Layout(
            tensors=[
                pb.Tensor(name=tensor.name, shape=tensor.shape, section=tensor.section)  # type: ignore[arg-type]
                for tensor in self.tensors
            ]
        )

    @classmethod
    def from_proto(cls, message: pb.Layout) -> Layout:
        """Return the layout that a message describes.

        Raises:
            InvalidRequest: It is not a layout (see the class), or one of its tensors has too many dimensions.
        """
        deepest = max((tensor for tensor in message.tensors), key=lambda tensor: len(tensor.shape), default=None)
        if deepest is not None and len(deepest.shape) > MOST_DIMENSIONS:
            raise InvalidRequest(
                f"a tensor must have at most {MOST_DIMENSIONS} dimensions; received {len(deepest.shape)} of "
                f"{deepest.name[:80]!r}."
            )
        return cls.of((tensor.name, tuple(tensor.shape), tensor.section) for tensor in message.tensors)

    @classmethod
    def of(cls, tensors: Iterable[tuple[str, tuple[int, ...], int]]) -> Layout:
        """Return the layout of `(name, shape, section)` triples."""
        return cls(tuple(Tensor(name, tuple(shape), section) for name, shape, section in tensors))
