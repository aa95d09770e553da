"""The description of one push by its worker: samples, loss, norm, and the weights that it was computed from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from downpour.protos import parameter_server_pb2 as pb


@dataclass(frozen=True, slots=True)
class PushInfo:
    """The description of a gradient, from its computation to the header of its push.

    The server receives it as `downpour.ps.core.push.Push`.

    Attributes:
        base: The version, on every shard, of the weights that the gradient was computed from.
        norm: The norm of the payload's trained part over all shards; not finite if the payload holds NaN or Inf.
        samples: The number of samples that the gradient averages over.
        loss: The mean loss over the samples.
        correct: The number of samples that were classified correctly.
        steps: The number of local steps that the push sums up.
        lease: The number of the lease that the samples belong to; 0 if they are not leased.
        epoch: The epoch of the samples, from 0.
        start: The first position in the epoch's permutation.
        stop: The position after the last one.
        tensors: The bitmap of the tensors that the payload contains; empty for all.
        compute_s: The seconds that the computation took; 0 if they were not measured.
        repeats: Whether another push of the same train step has counted the samples already.
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
    tensors: bytes = b""
    compute_s: float = 0.0
    repeats: bool = False

    @property
    def finite(self) -> bool:
        """Whether every element of the payload is a finite number."""
        return math.isfinite(self.norm)

    def with_norm(self, norm: float) -> PushInfo:
        """Return this description with another norm."""
        return replace(self, norm=norm)

    def with_compute_s(self, seconds: float) -> PushInfo:
        """Return this description with another duration of the computation."""
        return replace(self, compute_s=seconds)

    def followed_by(self, other: PushInfo, norm: float) -> PushInfo:
        """Return the description of the sum of this gradient and the next one of its lease.

        Args:
            other: The description of the next gradient, whose base becomes that of the sum.
            norm: The norm of the sum.
        """
        samples = self.samples + other.samples
        loss = (self.loss * self.samples + other.loss * other.samples) / samples
        return replace(
            other, norm=norm, samples=samples, loss=loss, correct=self.correct + other.correct,
            steps=self.steps + other.steps, start=self.start, compute_s=self.compute_s + other.compute_s,
        )  # fmt: skip

    def to_request(self, shard: int) -> pb.Request:
        """Return the header of the push to one shard; the client adds the worker's identity and the encoding."""
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
            tensors=self.tensors,
            compute_s=self.compute_s,
            repeats=self.repeats,
        )
