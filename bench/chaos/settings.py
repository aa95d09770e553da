"""The settings of `downpour bench chaos`, and the counts that its rounds add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pydantic import Field

from downpour.protos.settings import Settings

ROLES = ("worker", "server", "launcher")


class ChaosSettings(Settings):
    """Kill processes of running jobs at random and check that no update was lost or repeated."""

    script: bool = Field(False, description="Run a Keras script, by `downpour run`, instead of built-in training.")
    seed: int = Field(0, ge=0, description="Seed that determines which process is killed and when.")
    kills: int = Field(20, ge=1, description="Number of kills.")
    workers: int = Field(3, ge=1, le=60, description="Number of workers.")
    shards: int = Field(1, ge=1, le=8, description="Number of servers.")
    samples: int = Field(32768, ge=64, le=1 << 20, description="Training samples of each epoch.")
    pause_ms: int = Field(10, ge=0, description="Minimum time of a gradient computation.")
    gap_s: float = Field(1.0, ge=0, description="Mean time between the end of an outage and the next kill.")
    mode: str = Field(
        "async", description="Consistency mode. Means and replicas are checked by the traces, not by the weights."
    )
    codec: str = Field("float32", description="Encoding of pushes.")
    transport: str = Field("auto", description="Transport of payloads.")
    keep: str | None = Field(None, description="Folder that keeps the run directories (default: a temporary one).")


@dataclass
class ChaosCounts:
    """The disturbances of the jobs, and the findings of the checks.

    Attributes:
        kills: The number of kills with a push in flight, by role.
        misses: The number of attempts to kill that found no push in flight.
        additional_kills: The number of processes killed at the same moment as another one.
        suspensions: The number of processes stopped for longer than a session.
        resets: The number of processes whose connections were reset.
        connections: The number of connections that were reset.
        resumes: The number of jobs resumed after the launcher was killed.
        partial: The number of pushes that some shard did not apply, as the servers count them.
        samples: The number of samples × epochs that were checked.
        outages_s: The seconds until a push was answered after a kill, by role.
        faults: The violations, one line each.
    """

    kills: Counter[str] = field(default_factory=Counter)
    misses: int = 0
    additional_kills: int = 0
    suspensions: int = 0
    resets: int = 0
    connections: int = 0
    resumes: int = 0
    partial: int = 0
    samples: int = 0
    outages_s: dict[str, list[float]] = field(default_factory=lambda: {role: [] for role in ROLES})
    faults: list[str] = field(default_factory=list)
