"""A push as its worker describes it, and what became of it."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Outcome(IntEnum):
    """What became of a push; the numbers are those of the wire."""

    APPLIED = 0
    BUFFERED = 1
    DROPPED = 2


class Push(NamedTuple):
    """What a worker says of a gradient that it pushes.

    Attributes:
        base_version: The version that the gradient was computed from.
        samples: That the gradient averages over.
        norm: Of the whole gradient, over all shards.
        nonfinite: The whole gradient holds NaN or Inf.
        start: With `stop`, the range of the epoch's permutation that was used.
        steps: Local steps that the push sums up.
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
    """What became of a push, as its worker is told and the trace records it.

    Attributes:
        version: That the update made; of the shard when the push was dropped or buffered.
        staleness: Updates between the base version and the one that this push is part of.
        learning_rate: Effective, after staleness policy and schedule; 0 unless applied.
        reason: Why it was dropped.
    """

    outcome: Outcome
    version: int
    staleness: int
    learning_rate: float = 0.0
    reason: str = ""
