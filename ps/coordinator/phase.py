"""What a job is doing, in one word."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """What a job is doing."""

    WAITING = "waiting"  # for a first worker
    RECOVERING = "recovering"  # for a shard to come back, or for the weights of a checkpoint
    INITIALISING = "initialising"
    WARMING = "warming"
    TRAINING = "training"
    DRAINING = "draining"  # no more leases: save what there is
    FINISHING = "finishing"  # the last evaluation
    ENDED = "ended"
    FAILED = "failed"


OVER = (Phase.ENDED, Phase.FAILED)
BEFORE_TRAINING = (Phase.WAITING, Phase.RECOVERING, Phase.INITIALISING, Phase.WARMING)
