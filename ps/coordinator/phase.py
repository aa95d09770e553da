"""The phases of a job."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """What a job is doing, in the order of a complete run; RECOVERING may follow any phase before the end."""

    WAITING = "waiting"  # for the first worker
    RECOVERING = "recovering"  # for a shard to come back, or for the weights of a checkpoint
    INITIALISING = "initialising"
    WARMING = "warming"
    TRAINING = "training"
    DRAINING = "draining"  # no samples are leased any more; the weights so far are evaluated and saved
    FINISHING = "finishing"  # the last weights are being evaluated and saved
    ENDED = "ended"
    FAILED = "failed"


OVER = (Phase.ENDED, Phase.FAILED)
BEFORE_TRAINING = (Phase.WAITING, Phase.RECOVERING, Phase.INITIALISING, Phase.WARMING)
