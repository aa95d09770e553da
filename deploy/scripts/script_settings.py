"""Settings of a job whose model, data and optimizer are defined by a user's script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from downpour.deploy.config import TrainSettings, cores
from downpour.protos.credentials import AccessSettings
from downpour.protos.logs import LogSettings
from downpour.protos.settings import ENV_PREFIX
from downpour.ps.config import JobSettings, ServerSettings
from downpour.worker.config import ScriptSettings, WorkerSettings

# Flags of the coordinator, which receives model, data and optimizer from the script.
SCRIPT_JOB = ("--model=script", "--dataset=script", "--script", "--checkpoint-every=off", "--idle-timeout-s=0")

# Settings without a flag of `downpour run`: the processes of the cluster read their variables themselves.
INHERITED = frozenset(
    "admitted call_timeout_s connect_timeout_s doorbell_dir insecure metrics_host start_timeout_s".split()
)
# Settings that place a process in a cluster: a launcher sets them, and a platform may where TF_CONFIG does not.
OF_PLACE = frozenset("advertise bind coordinator end_job resume run_dir server shard worker".split())


def _of_job(name: str) -> Any:
    """Return the field of `JobSettings` with this name."""
    return JobSettings.model_fields[name]


class RunSettings(AccessSettings, LogSettings):
    """Settings of a cluster for a script, which defines the model, the optimizer, the data and the epochs."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "cluster": ("workers", "shards", "transport", "codec", "session_s", "reconnect_s", "drain_timeout_s"),
        "asynchrony": ("mode", "staleness", "version_memory", "momentum_correction", "nonfinite_limit"),
        "processes": ("threads", "seed", "worker_restarts", "runs_dir"),
        "access": ("tls_dir", "token_file"),
        "operation": ("metrics_port", "tensorboard", "log_format", "dashboard"),
    }

    workers: int = Field(
        default_factory=lambda: max(2, cores()), ge=1, le=1024,
        description="Number of worker processes (default: the number of cores, at least 2).",
    )  # fmt: skip
    shards: int = _of_job("shards")
    transport: str = _of_job("transport")
    codec: str = _of_job("codec")
    session_s: float = _of_job("session_s")
    reconnect_s: float = _of_job("reconnect_s")
    drain_timeout_s: float = Field(
        7.0, gt=0, le=86_400, description="Time after which a script that was asked to end is killed."
    )
    mode: str = _of_job("mode")
    staleness: str = _of_job("staleness")
    version_memory: int = _of_job("version_memory")
    momentum_correction: bool = _of_job("momentum_correction")
    nonfinite_limit: int = _of_job("nonfinite_limit")
    seed: int = Field(0, ge=0, lt=2**32, description="Keras's random seed, the same in all workers.")
    threads: int = Field(1, ge=1, le=1024, description="TensorFlow threads of each worker.")
    worker_restarts: int = Field(3, ge=0, description="Number of times that a worker is restarted after it was killed.")
    metrics_port: int | None = Field(
        None, ge=0, lt=65536, description="Port of shard 0 that serves metrics to Prometheus."
    )
    tensorboard: bool = Field(True, description="Write event files for TensorBoard into the run directory.")
    dashboard: bool = Field(False, description="Serve a page that shows the job, and print its address.")
    runs_dir: str = Field("runs", min_length=1, description="Parent folder of the run directories.")


def variables_of(names: frozenset[str] | set[str]) -> frozenset[str]:
    """Return the names of the variables that set some settings."""
    return frozenset(f"{ENV_PREFIX}{name.upper()}" for name in names)


# Variables that a process of a script's cluster must not inherit: it receives these settings as flags.
SET_BY_FLAGS_OF_RUN = variables_of({*RunSettings.model_fields})


def refused_variables(environ: Mapping[str, str], placed: bool = False) -> str:
    """Return why variables of the environment cannot be used for a script, or an empty string.

    A variable that is set and changes nothing would train something else than the user asked for.

    Args:
        environ: The environment of `downpour run`.
        placed: Whether a platform places the process, so that variables may set its address.
    """
    kinds = (ServerSettings, ScriptSettings, WorkerSettings, TrainSettings)
    known = {name for kind in kinds for name in kind.model_fields}
    refused = variables_of(known - RunSettings.model_fields.keys() - INHERITED - (OF_PLACE if placed else set()))
    found = sorted(name for name, value in environ.items() if value and name.upper() in refused)
    if not found:
        return ""
    return (
        f"the variables of a script's cluster must be settings of `downpour run`; received {', '.join(found)}. "
        "The script defines model, data, epochs and optimizer, and the launcher the place of each process: unset it"
        + ("" if len(found) == 1 else ", all of them")
    )
