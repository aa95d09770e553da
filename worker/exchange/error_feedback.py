"""Error feedback: the part of a gradient that a lossy codec omits is added to the next push."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from downpour.protos.codecs.codec import Buffer, codec_named
from downpour.protos.coverage import Coverage
from downpour.protos.layout import Slice


class ErrorFeedback:
    """The residual of every shard's slice: Σ gradients = Σ decoded + residual (Karimireddy et al. 2019).

    It outlives connections and sessions: a worker that joins again continues with it.

    Attributes:
        residuals: The residual `float32[n]` of every shard's slice; empty if the codec is exact.
    """

    def __init__(self, codec: str, slices: Sequence[Slice], seed: int | Sequence[int] = 0) -> None:
        """Create the residuals of every shard, which are zero at first.

        Args:
            codec: The name of the codec of pushes.
            slices: The shards' slices of the flat vector.
            seed: The seed of stochastic rounding.
        """
        self._codec = codec_named(codec)
        self._rng = np.random.default_rng(seed)
        self.residuals = [np.zeros(part.trained if self._codec.lossy else 0, np.float32) for part in slices]

    def encode(self, shard: int, gradient: np.ndarray, coverage: Coverage | None = None) -> Buffer:
        """Return the encoded gradient of a shard's slice, to which the residual of earlier pushes is added.

        Args:
            shard: The number of the shard.
            gradient: The gradient of the slice, or of its covered elements.
            coverage: The coverage of the push; None if it covers the whole slice. The residual of other elements stays.
        """
        if not len(gradient):
            return b""
        if not self._codec.lossy:
            return self._codec.encode(gradient, self._rng)
        residual = self.residuals[shard]
        covered = residual if coverage is None else coverage.compress(residual)
        covered += gradient
        payload = self._codec.encode(covered, self._rng)
        self._codec.deduct(payload, covered)
        if coverage is not None:
            for start, stop, at, _ in coverage.ranges:
                residual[start:stop] = covered[at : at + stop - start]
        return payload
