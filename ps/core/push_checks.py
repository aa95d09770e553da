"""Checks of a push before it is applied: that it is well formed, and that its gradient is finite."""

from __future__ import annotations

import math

import numpy as np

from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.errors import Fenced, FutureVersion, InvalidRequest
from downpour.ps.core.push import Push


def check_push(push: Push, gradient: np.ndarray | ChunkedVector, size: int, version: int) -> None:
    """Check a push against a shard of `size` elements that is at `version`.

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
            f"a push to this shard must have {size:,} elements; received {len(gradient):,}. "
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
