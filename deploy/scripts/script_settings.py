"""Settings of a job whose model, data and optimizer are defined by a user's script."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, ClassVar, Literal

from pydantic import Field

from downpour.deploy.config import TrainSettings
from downpour.deploy.runs import RunPath
from downpour.protos.credentials import AccessSettings
from downpour.protos.logs import LogSettings
from downpour.protos.settings import ENV_PREFIX, flag, to_flags
from downpour.ps.config import OF_SCRIPT, JobSettings, ServerSettings
from downpour.worker.config import ScriptSettings, WorkerSettings

# Flags of the coordinator, which receives model, data and optimizer from the script.
SCRIPT_JOB = (*(f"{flag(name)}={value}" for name, value in OF_SCRIPT.items()), "--script")

# Settings without a flag of `downpour run`: the processes of the cluster read their variables themselves.
INHERITED = frozenset(
    "admitted call_timeout_s connect_timeout_s doorbell_dir insecure metrics_host start_timeout_s".split()
)
# Settings that place a process in a cluster: a launcher sets them, and a platform may where TF_CONFIG does not.
OF_PLACE = frozenset(
    "advertise bind completed_dir coordinator end_job fresh_workers resume run_dir server shard tcp_advertise "
    "tcp_port worker replay_of private_files".split()
)


_HYPERPARAMETERS = [
    name for name in JobSettings.groups["optimizer"] if name not in ("optimizer", "clip_norm", "nonfinite_limit")
]
_SCRIPT = "The script defines {}."
_BUILT_IN = "It concerns the step that `downpour train` builds itself: {}."
# Settings of `downpour train` that `downpour run` does not have, with the reason.
NOT_OF_A_SCRIPT: dict[str, str] = {
    "model": _SCRIPT.format("the model"),
    "dataset": _SCRIPT.format("the data"),
    "weights": _SCRIPT.format("the initial weights: `model.load_weights`"),
    "scale": _SCRIPT.format("the scale of the samples: `keras.layers.Rescaling`"),
    "epochs": _SCRIPT.format("the epochs, as an argument of `fit`"),
    "batch_size": _SCRIPT.format("the size of a batch, as an argument of `fit`"),
    "validation_split": _SCRIPT.format("the validation data, as an argument of `fit`"),
    "early_stopping": _SCRIPT.format("when to stop: `keras.callbacks.EarlyStopping`"),
    "optimizer": _SCRIPT.format("the optimizer"),
    **dict.fromkeys(_HYPERPARAMETERS, _SCRIPT.format("it, as an argument of the optimizer")),
    "schedule": _SCRIPT.format("the learning rate, by a schedule of Keras or by a callback"),
    "warm_up": _SCRIPT.format("the learning rate, by a schedule such as `CosineDecay(warmup_steps=…)`"),
    "xla": _BUILT_IN.format("a step of a script calls the servers from within TensorFlow's graph, which XLA cannot"),
    "verbose": "The terminal belongs to the script; `downpour status latest --watch` shows the workers.",
}
# Settings of `downpour run` that `downpour train` does not have, with the reason.
OF_A_SCRIPT: dict[str, str] = {
    "spread_validation": "`downpour train` always spreads validation, as tasks of any worker while others train.",
}


def _same(name: str, **changes: Any) -> Any:
    """Return the setting of `downpour train` with this name, which a script's cluster has as well.

    Args:
        name: The name of the setting.
        changes: The attributes in which a script's setting differs, such as its default.
    """
    found = copy(TrainSettings.model_fields[name])
    for attribute, value in changes.items():
        setattr(found, attribute, value)
    return found


class RunSettings(AccessSettings, LogSettings):
    """Settings of a cluster for a script, which defines the model, the optimizer, the data and the epochs.

    Every setting is that of `downpour train`, so that flags, variables, bounds and checks are the same. Those that a
    script's cluster does not have are in `NOT_OF_A_SCRIPT`, and those that it has besides in `OF_A_SCRIPT`.
    """

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "cluster": (
            "workers", "shards", "transport", "codec", "lease_batches", "session_s", "reconnect_s", "idle_timeout_s",
            "drain_timeout_s", "spread_validation",
        ),
        "asynchrony": (
            "mode", "push_every", "fetch_every", "overlap", "staleness_policy", "version_memory", "warm_start",
            "momentum_correction",
            "clip_norm", "nonfinite_limit",
        ),
        "durability": ("checkpoint_every", "checkpoint_keep", "record"),
        "processes": (
            "threads", "gpus_per_worker", "seed", "worker_restarts", "server_restarts", "runs_dir", "resume", "dry_run",
        ),
        "access": ("tls_dir", "token_file"),
        "operation": ("metrics_port", "tensorboard", "log_format", "dashboard"),
    }  # fmt: skip

    follows: ClassVar[str] = "SCRIPT [ARGUMENTS]"
    refused: ClassVar[Mapping[str, str]] = NOT_OF_A_SCRIPT

    workers: int = _same("workers")
    shards: int = _same("shards")
    transport: str = _same("transport")
    codec: str = _same("codec")
    lease_batches: int = _same(
        "lease_batches",
        description="Number of batches in a lease of samples. 0: chosen from the data and the number of workers.",
    )
    session_s: float = _same("session_s")
    reconnect_s: float = _same("reconnect_s")
    idle_timeout_s: float = _same(
        "idle_timeout_s",
        default=0.0,
        description="The job fails after this time without a worker in fit. 0: it waits without limit.",
    )
    drain_timeout_s: float = _same(
        "drain_timeout_s", description="Time after which a script that was asked to end is killed."
    )
    spread_validation: bool = Field(
        ServerSettings.model_fields["spread_validation"].default,
        description="Each worker evaluates a part of the validation data after an epoch, instead of worker 0 all.",
    )
    mode: str = _same("mode")
    push_every: int = _same("push_every")
    fetch_every: int | None = _same("fetch_every")
    overlap: bool = _same("overlap")
    staleness_policy: str = _same("staleness_policy")
    version_memory: int = _same("version_memory")
    warm_start: int = _same("warm_start")
    momentum_correction: bool = _same("momentum_correction")
    clip_norm: float = _same("clip_norm")
    nonfinite_limit: int = _same("nonfinite_limit")
    seed: int = _same("seed", description="Keras's random seed, the same in all workers.")
    threads: int = _same("threads")
    gpus_per_worker: float | None = _same("gpus_per_worker")
    worker_restarts: int = _same("worker_restarts")
    server_restarts: int = _same("server_restarts")
    checkpoint_every: str = _same("checkpoint_every")
    checkpoint_keep: int = _same("checkpoint_keep")
    record: Literal["auto", "on", "off"] = _same("record")
    metrics_port: int | None = _same("metrics_port")
    tensorboard: bool = _same("tensorboard")
    dashboard: bool = _same("dashboard")
    dry_run: bool = _same("dry_run")
    runs_dir: str = _same("runs_dir")
    resume: RunPath | None = _same("resume")

    @property
    def without_progress(self) -> str:
        """Why a job with these settings would never progress, whatever the script does; empty if it can."""
        return _job_of(self).without_progress


def server_flags(settings: RunSettings) -> list[str]:
    """Return the flags of the coordinator of a script's cluster."""
    job = settings.model_copy(update={"resume": None})  # the path of a run here, and a switch of a server
    return [*to_flags(job, ServerSettings), *SCRIPT_JOB, f"{flag('idle_timeout_s')}={settings.idle_timeout_s:g}"]


def _job_of(settings: RunSettings) -> ServerSettings:
    """Return the settings as the coordinator has them, of which no check has been made."""
    names = RunSettings.model_fields.keys() & ServerSettings.model_fields.keys()
    shared: dict[str, Any] = {name: getattr(settings, name) for name in names}
    return ServerSettings.model_construct(**shared)


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
