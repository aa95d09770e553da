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
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest

TRAINED, STATE = pb.TRAINED, pb.STATE
MOST_DIMENSIONS = 32  # of a received tensor: computing the size of one with many more takes long


class Constraint(NamedTuple):
    """What the values of a trained tensor must satisfy after every update.

    Attributes:
        name: The name of the class in `keras.constraints`.
        axes: The axes along which norms are computed; none for a constraint on each element.
        values: The arguments that are numbers, in the order of the class, then Keras's epsilon.
    """

    name: str
    axes: tuple[int, ...] = ()
    values: tuple[float, ...] = ()


class UpdateFlags(NamedTuple):
    """The properties of a trained tensor that its updates depend on.

    Attributes:
        optimizer: The index of the optimizer that trains it.
        decays: Whether the weight decay of that optimizer applies to it.
        overwrites: Whether a push contains its new value instead of a gradient.
        constraint: What its values must satisfy; None if there is no constraint.
    """

    optimizer: int = 0
    decays: bool = True
    overwrites: bool = False
    constraint: Constraint | None = None


@dataclass(frozen=True)
class Tensor:
    """One tensor of the model: its name, its shape, the section that it belongs to, and how it is updated."""

    name: str
    shape: tuple[int, ...]
    section: int = TRAINED
    flags: UpdateFlags = UpdateFlags()

    @property
    def size(self) -> int:
        """The number of elements of the tensor."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        """Return the tensor as error messages show it."""
        kind = "" if self.section == TRAINED else ", not trained"
        return f"{self.name!r} {list(self.shape)}{kind}{'' if self.flags == UpdateFlags() else f', {self.flags}'}"


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
    def trained_tensors(self) -> tuple[Tensor, ...]:
        """The tensors that are trained, which come first."""
        return tuple(tensor for tensor in self.tensors if tensor.section == TRAINED)

    @cached_property
    def trained(self) -> int:
        """Number of trained elements, n."""
        return sum(tensor.size for tensor in self.trained_tensors)

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

        A tensor with a constraint along an axis is not cut: an edge within it is moved to the nearer end of it.

        Raises:
            InvalidRequest: There are more shards than trained elements, or none; or a shard would have no elements.
        """
        if not 1 <= shards <= self.trained:
            raise InvalidRequest(
                f"the number of shards must lie between 1 and the number of trained weights, {self.trained}; "
                f"received {shards}. Use fewer shards."
            )
        edges = [self._whole_edge(self.trained * k // shards) for k in range(shards + 1)]
        if any(first >= last for first, last in pairwise(edges)):
            raise InvalidRequest(
                "a shard must have trained weights, and a tensor whose constraint has an axis must be on one shard; "
                f"received {shards} shards; one of them would have no trained weights. Use fewer shards."
            )
        return [Slice(edges[k], edges[k + 1], self.state if k == 0 else 0) for k in range(shards)]

    def _whole_edge(self, edge: int) -> int:
        """Return an edge between two shards that does not cut a tensor which must be on one shard."""
        start = 0
        for tensor in self.trained_tensors:
            stop = start + tensor.size
            constraint = tensor.flags.constraint
            if start < edge < stop and constraint is not None and constraint.axes:
                return start if edge - start <= stop - edge else stop
            start = stop
        return edge

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Return views of the tensors in a flat vector `float32[n + m]`, by name."""
        views, offset = {}, 0
        for tensor in self.tensors:
            views[tensor.name] = flat[offset : offset + tensor.size].reshape(tensor.shape)
            offset += tensor.size
        return views

    def fits(self, other: Layout) -> bool:
        """Return whether both have tensors of equal shapes and flags in the same places; their names may differ."""
        ours, theirs = ([(t.shape, t.section, t.flags) for t in each.tensors] for each in (self, other))
        return ours == theirs

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
                pb.Tensor(
                    name=t.name,
                    shape=t.shape,
                    section=t.section,  # type: ignore[arg-type]
                    optimizer=t.flags.optimizer,
                    no_decay=not t.flags.decays,
                    overwrite=t.flags.overwrites,
                    constraint=None if t.flags.constraint is None else pb.Constraint(**t.flags.constraint._asdict()),
                )  # fmt: skip
                for t in self.tensors
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
        return cls(
            tuple(
                Tensor(
                    t.name,
                    tuple(t.shape),
                    t.section,
                    UpdateFlags(t.optimizer, not t.no_decay, t.overwrite, _constraint_of(t)),
                )
                for t in message.tensors
            )
        )

    @classmethod
    def of(cls, tensors: Iterable[tuple[str, tuple[int, ...], int]]) -> Layout:
        """Return the layout of `(name, shape, section)` triples."""
        return cls(tuple(Tensor(name, tuple(shape), section) for name, shape, section in tensors))


def _constraint_of(tensor: pb.Tensor) -> Constraint | None:
    if not tensor.HasField("constraint"):
        return None
    given = tensor.constraint
    if any(axis >= len(tensor.shape) for axis in given.axes):
        raise InvalidRequest(
            f"a constraint must have axes of its tensor; received {list(given.axes)} for {tensor.name!r} with "
            f"{len(tensor.shape)} dimensions. Check that both sides run the same version."
        )
    return Constraint(given.name, tuple(given.axes), tuple(given.values))
