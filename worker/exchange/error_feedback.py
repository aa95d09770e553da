"""Error feedback: the part of a gradient that a lossy codec omits is added to the next push."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from downpour.protos.codec import Buffer, codec_named
from downpour.protos.layout import Slice


class ErrorFeedback:
    """The residual of every shard's slice: Σ gradients = Σ decoded + residual (Karimireddy et al. 2019).

    It outlives connections and sessions: a worker that joins again continues with it.

    Attributes:
        residuals: The residual `float32[n]` of every shard's slice; empty if the codec is exact.
    """

    def __init__(self, codec: str, slices: Sequence[Slice], seed: int | Sequence[int] = 0) -> None:
        """Create residuals of zero.

        Args:
            codec: The name of the codec of pushes.
            slices: The shards' slices of the flat vector.
            seed: The seed of stochastic rounding.
        """
        self._codec = codec_named(codec)
        self._rng = np.random.default_rng(seed)
        self.residuals = [np.zeros(part.trained if self._codec.lossy else 0, np.float32) for part in slices]

    def encode(self, shard: int, gradient: np.ndarray) -> Buffer:
        """Return the encoded gradient of a shard's slice, to which the residual of earlier pushes is added."""
        if not self._codec.lossy:
            return self._codec.encode(gradient, self._rng)
        residual = self.residuals[shard]
        residual += gradient
        payload = self._codec.encode(residual, self._rng)
        self._codec.deduct(payload, residual)
        return payload
