"""The description of a push and its outcome."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


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
