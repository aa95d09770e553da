"""Settings of a job whose model, data and optimizer are defined by a user's script."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from downpour.deploy.config import cores
from downpour.protos.settings import Settings
from downpour.ps.config import JobSettings

# Flags of the coordinator, which receives model, data and optimizer from the script.
SCRIPT_JOB = ("--model=script", "--dataset=script", "--script", "--checkpoint-every=off", "--idle-timeout-s=0")


def _of_job(name: str) -> Any:
    """Return the field of `JobSettings` with this name."""
    return JobSettings.model_fields[name]


class RunSettings(Settings):
    """Settings of a cluster for a script, which defines the model, the optimizer, the data and the epochs."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "cluster": ("workers", "shards", "transport", "codec", "session_s", "drain_timeout_s"),
        "asynchrony": ("mode", "staleness", "version_memory", "momentum_correction"),
        "processes": ("threads", "seed", "worker_restarts", "tensorboard", "dashboard", "runs_dir"),
    }

    workers: int = Field(
        default_factory=lambda: max(2, cores()), ge=1, le=1024,
        description="Number of worker processes (default: the number of cores, at least 2).",
    )  # fmt: skip
    shards: int = _of_job("shards")
    transport: str = _of_job("transport")
    codec: str = _of_job("codec")
    session_s: float = _of_job("session_s")
    drain_timeout_s: float = Field(
        7.0, gt=0, le=86_400, description="Time after which a script that was asked to end is killed."
    )
    mode: str = _of_job("mode")
    staleness: str = _of_job("staleness")
    version_memory: int = _of_job("version_memory")
    momentum_correction: bool = _of_job("momentum_correction")
    seed: int = Field(0, ge=0, lt=2**32, description="Keras's random seed, the same in all workers.")
    threads: int = Field(1, ge=1, le=1024, description="TensorFlow threads of each worker.")
    worker_restarts: int = Field(3, ge=0, description="Number of times that a worker is restarted after it was killed.")
    tensorboard: bool = Field(True, description="Write event files for TensorBoard into the run directory.")
    dashboard: bool = Field(False, description="Serve a page that shows the job, and print its address.")
    runs_dir: str = Field("runs", min_length=1, description="Parent folder of the run directories.")
