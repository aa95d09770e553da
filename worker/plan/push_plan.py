"""The intervals of a worker's pushes and pulls, and the content of its pushes, from the job's description."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.core.consistency import consistency_of

Payload = Literal["gradient", "difference", "replica"]


@dataclass(frozen=True)
class PushPlan:
    """The plan of a worker's pushes and pulls.

    Attributes:
        push_every: The number of batches that a push sums up.
        fetch_every: The number of batches between two pulls.
        payload: The content of a push: the sum of gradients, the difference that the local steps made to the weights,
            or the worker's own weights.
        overlap: Whether the next gradient is computed while a push-pull is in flight.
        fresh: Whether weights are pulled for every lease, because the mode drops late gradients.
        mode: The value of `--mode` that the plan follows, for messages.
    """

    push_every: int = 1
    fetch_every: int = 1
    payload: Payload = "gradient"
    overlap: bool = False
    fresh: bool = False
    mode: str = field(default="async", compare=False)

    @classmethod
    def of(cls, job: pb.JobDescription) -> Self:
        """Return the plan of a job.

        Raises:
            ValueError: The registry has no such mode, or its parameters are invalid.
        """
        try:
            mode = consistency_of(job.mode)
        except ValueError as error:
            raise ValueError(f"the job's mode {error}; received {job.mode!r}.") from None
        if mode.payload != "gradient":
            return cls(mode.period, mode.period, mode.payload, mode=job.mode)
        push_every = max(1, job.push_every)
        return cls(
            push_every, job.fetch_every or push_every, "gradient", job.overlap, mode.pulls_per_lease, job.mode
        )  # fmt: skip

    @property
    def setting(self) -> str:
        """The setting because of which not every gradient is pushed and followed by a pull, for messages."""
        if self.payload != "gradient":
            return f"--mode {self.mode}"
        if self.overlap:
            return "--overlap"
        return f"--push-every {self.push_every} --fetch-every {self.fetch_every}"

    @property
    def every_gradient(self) -> bool:
        """Whether every gradient is pushed, and weights are pulled after each before the next one is computed."""
        return self.payload == "gradient" and not (self.local or self.overlap)

    @property
    def together(self) -> bool:
        """Whether the reply to every push contains weights."""
        return self.push_every == self.fetch_every

    @property
    def local(self) -> bool:
        """Whether the worker makes local steps between exchanges."""
        return self.push_every > 1 or self.fetch_every > 1
