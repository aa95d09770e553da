"""The description of a push and its outcome, and the checks of a push before it is applied."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.errors import Fenced, FutureVersion, InvalidRequest


class Outcome(IntEnum):
    """The outcome of a push, with the numbers of the wire format."""

    APPLIED = 0
    BUFFERED = 1
    DROPPED = 2


class Push(NamedTuple):
    """The description of a pushed gradient.

    Attributes:
        base_version: The version that the gradient was computed from.
        samples: The number of samples that the gradient averages over.
        norm: The norm of the gradient over all shards.
        nonfinite: Whether the gradient holds NaN or Inf on some shard.
        start: With `stop`, the positions of the epoch's permutation that were used.
        steps: The number of local steps that the push sums up.
        tensors: The bitmap of the tensors that the push covers; empty for all.
        compute_s: The seconds that the worker computed it; 0 if they were not measured.
        repeats: Whether another push of the same train step has counted the samples already.
    """

    worker: int
    incarnation: int
    seq: int
    base_version: int
    samples: int = 1
    norm: float = 0.0
    nonfinite: bool = False
    loss: float = 0.0
    correct: int = 0
    lease: int = 0
    epoch: int = 0
    start: int = 0
    stop: int = 0
    steps: int = 1
    tensors: bytes = b""
    compute_s: float = 0.0
    repeats: bool = False


class Result(NamedTuple):
    """The result of a push, as its worker and the trace receive it.

    Attributes:
        outcome: Whether the push was applied, buffered or dropped.
        version: The version that the update made; if dropped or buffered, that of the shard.
        staleness: The number of updates between the base version and the update of this push.
        learning_rate: The effective learning rate; 0 unless applied.
        reason: Why the push was dropped.
    """

    outcome: Outcome
    version: int
    staleness: int
    learning_rate: float = 0.0
    reason: str = ""


def check_push(push: Push, gradient: np.ndarray | ChunkedVector, size: int, version: int) -> None:
    """Check a push of `size` elements against a shard that is at `version`.

    Raises:
        InvalidRequest: The gradient averages over no samples, or has the wrong length.
        FutureVersion: The shard has not reached the base version.
    """
    if push.samples < 1:
        raise InvalidRequest(
            f"a gradient must average over 1 or more samples; received {push.samples}. Set the header's samples."
        )
    if not push.nonfinite and len(gradient) != size:
        raise InvalidRequest(
            f"a push of these tensors to this shard must have {size:,} elements; received {len(gradient):,}. "
            "Check that the worker's model is the job's."
        )
    if push.base_version > version:
        raise FutureVersion(
            f"a base version must be at most the shard's version, {version}; received {push.base_version}. "
            "Pull again: the shard may have been restored from an older checkpoint."
        )


def check_generation(received: int, generation: int) -> None:
    """Raise Fenced unless a push comes from weights of the shard's current generation."""
    if received != generation:
        raise Fenced(
            f"a push must come from weights of generation {generation} of this shard; received one from "
            f"generation {received}. Pull again and drop the gradient."
        )


def is_finite(vector: np.ndarray | ChunkedVector) -> bool:
    """Return whether every element is finite.

    The sum of squares is finite only if all elements are. It may overflow, and only then each element is checked.
    """
    if isinstance(vector, ChunkedVector):
        return all(map(is_finite, vector.arrays))
    if vector.size == 1:
        return math.isfinite(vector[0])
    return math.isfinite(vector.dot(vector)) or bool(np.isfinite(vector).all())
