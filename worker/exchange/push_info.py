"""What a worker states about one push: the samples, the loss, the norm, and the weights that it was computed from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from downpour.protos import parameter_server_pb2 as pb


@dataclass(frozen=True, slots=True)
class PushInfo:
    """What accompanies a gradient from its computation to the header of its push.

    The server's side of it is `downpour.ps.core.push.Push`.

    Attributes:
        base: Version, on every shard, of the weights that the gradient was computed from.
        norm: Norm of the payload's trained part over all shards; not finite if the payload holds NaN or Inf.
        samples: Number of samples that the gradient averages over.
        loss: Mean over the samples.
        correct: Number of samples that were classified correctly.
        steps: Number of local steps that the push sums up.
        lease: Number of the lease that the samples belong to; 0 if none.
        epoch: Epoch of the samples, from 0.
        start: First position in the epoch's permutation.
        stop: Position after the last one.
    """

    base: tuple[int, ...]
    norm: float = 1.0
    samples: int = 1
    loss: float = 0.0
    correct: int = 0
    steps: int = 1
    lease: int = 0
    epoch: int = 0
    start: int = 0
    stop: int = 0

    @property
    def finite(self) -> bool:
        """Whether every element of the payload is a finite number."""
        return math.isfinite(self.norm)

    def with_norm(self, norm: float) -> PushInfo:
        """Return the same information about a payload of another norm."""
        return replace(self, norm=norm)

    def followed_by(self, other: PushInfo, norm: float) -> PushInfo:
        """Return the information about the sum of this gradient and the next one of its lease.

        Args:
            other: Information about the next gradient, whose base becomes that of the sum.
            norm: Norm of the sum.
        """
        samples = self.samples + other.samples
        loss = (self.loss * self.samples + other.loss * other.samples) / samples
        return replace(
            other, norm=norm, samples=samples, loss=loss, correct=self.correct + other.correct,
            steps=self.steps + other.steps, start=self.start,
        )  # fmt: skip

    def to_request(self, shard: int) -> pb.Request:
        """Return the header of the push to one shard; the client adds who pushes, and how."""
        return pb.Request(
            kind=pb.PUSH_PULL,
            base_version=self.base[shard],
            norm=self.norm,
            nonfinite=not self.finite,
            samples=self.samples,
            loss=self.loss,
            correct=self.correct,
            steps=self.steps,
            lease=self.lease,
            epoch=self.epoch,
            start=self.start,
            stop=self.stop,
        )
