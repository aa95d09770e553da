"""Settings of the job and of its servers: the one source of their flags, environment and defaults."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, create_model, model_validator

from downpour.protos.codec import CODECS, codec_named
from downpour.protos.credentials import AccessSettings
from downpour.protos.doorbell_socket import FOLDER_LIMIT_BYTES
from downpour.protos.errors import InvalidRequest
from downpour.protos.logs import LogSettings
from downpour.protos.settings import Address, Settings, did_you_mean, one_of
from downpour.ps.config_checks import refusal_of, refusal_of_steps
from downpour.ps.core.consistency import MODES
from downpour.ps.core.hyperparameters import Hyperparameters, known_hyperparameters, resolve
from downpour.ps.core.registry import forms, spec_of
from downpour.ps.core.schedules import SCHEDULES
from downpour.ps.core.staleness import POLICIES
from downpour.ps.core.update_rules import OPTIMIZERS

Transport = Literal["auto", "shm", "grpc"]
REFERENCE_LEARNING_RATE = 0.1  # of the reference model under plain SGD


def _known_codec(value: str) -> str:
    """Accepts a name of the registry, with a parameter where it takes one."""
    try:
        codec_named(value)
    except InvalidRequest as error:
        family = value.partition(":")[0]
        near = did_you_mean(family, CODECS) if family not in CODECS else ""
        raise ValueError(str(error).removeprefix("codec ").partition("; received")[0] + near) from None
    return value


def _short_enough(value: str | None) -> str | None:
    """Accepts a folder in which a Unix socket can have a name."""
    if value is not None and (not value or len(os.fsencode(os.path.abspath(value))) > FOLDER_LIMIT_BYTES):
        raise ValueError(
            f"must be a folder whose path has at most {FOLDER_LIMIT_BYTES} bytes, as the path of a socket is short"
        )
    return value


def _known_interval(value: str) -> str:
    """Accepts `2s`, a number of updates, or `off`."""
    interval_of(value)
    return value


def interval_of(value: str) -> tuple[float, int]:
    """Seconds and updates between two checkpoints; of the one that is not given: 0. Both are 0 for `off`.

    Raises:
        ValueError: It is neither.
    """
    if value == "off":
        return 0.0, 0
    number = value.removesuffix("s")
    try:
        seconds, updates = (float(number), 0) if value.endswith("s") else (0.0, int(number))
    except ValueError:
        seconds, updates = 0.0, 0
    if not 0 < seconds + updates < 1e9:
        raise ValueError("must be a time such as 2s, a number of updates such as 500, or off")
    return seconds, updates


def _optimizer_fields() -> dict[str, Any]:
    """Return the settings of all hyperparameters in the registry, for `create_model`."""
    fields: dict[str, Any] = {}
    for name, (each, users) in known_hyperparameters().items():
        taken_by = "" if len(users) == len(OPTIMIZERS) else f" Taken by {', '.join(users)}."
        default = " (default: that of the optimizer)"
        if name == "learning_rate":
            default = f" (default: {REFERENCE_LEARNING_RATE} for sgd, else that of the optimizer)"
        description = f"{each.doc}{taken_by}".removesuffix(".") + default
        fields[name] = float | None, Field(None, description=description, **each.bounds)
    return fields


if TYPE_CHECKING:

    class OptimizerSettings(Settings):
        """One setting for each hyperparameter of the optimizers in the registry."""

        learning_rate: float | None
        momentum: float | None

else:
    OptimizerSettings = create_model("OptimizerSettings", __base__=Settings, **_optimizer_fields())


def hyperparameters_of(settings: OptimizerSettings) -> Hyperparameters:
    """Return the hyperparameters that settings give; those that are not given are None."""
    return {name: getattr(settings, name, None) for name in known_hyperparameters()}


class JobSettings(OptimizerSettings):
    """What defines a job, whoever starts its processes. The coordinator owns it."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "model and data": (
            "model", "dataset", "validation_split", "epochs", "early_stopping", "batch_size", "seed",
        ),
        "cluster": ("workers", "shards", "transport", "codec", "lease_batches", "session_s"),
        "asynchrony": (
            "mode", "push_every", "fetch_every", "overlap", "staleness", "version_memory", "schedule", "warm_up",
            "warm_start", "momentum_correction",
        ),
        "durability": (
            "checkpoint_every", "checkpoint_keep", "record", "reconnect_s", "idle_timeout_s", "drain_timeout_s",
        ),
        "optimizer": ("optimizer", *known_hyperparameters(), "clip_norm", "nonfinite_limit"),
    }  # fmt: skip

    model: str = Field("sigmoid100", description="model: a registry name, or module:function that returns one")
    dataset: str = Field("mnist", description="data: mnist, fashion_mnist, or a path to an .npz")
    workers: int = Field(2, ge=1, le=100_000, description="workers to wait for before training starts (at most 60 s)")
    shards: int = Field(1, ge=1, le=1024, description="server processes that the weights are cut into")
    epochs: int = Field(10, ge=1, description="passes over the training data")
    early_stopping: int = Field(
        0, ge=0, description="stop after so many epochs without a lower validation loss; 0: never"
    )
    batch_size: int = Field(32, ge=1, description="samples per gradient")
    validation_split: float = Field(
        0.05, ge=0, lt=1, description="fraction of the training data held out, from its end"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of initial weights and of the order of the samples")
    mode: Annotated[str, spec_of(MODES)] = Field("async", description=f"consistency: {forms(MODES)}")
    push_every: int = Field(
        1, ge=1, le=100_000, description="batches that a worker steps through by itself for one push of their sum"
    )
    fetch_every: int | None = Field(
        None, ge=1, le=100_000, description="batches between two pulls of weights (default: as --push-every)"
    )
    overlap: bool = Field(
        False, description="compute the next gradient while a push-pull is in flight: faster, and staler"
    )
    staleness: Annotated[str, spec_of(POLICIES)] = Field(
        "none", description=f"what a stale gradient is worth: {forms(POLICIES)}"
    )
    version_memory: int = Field(
        1024, ge=0, description="MiB on each shard for old weights, which dc_asgd needs; past it, no correction"
    )
    schedule: Annotated[str, spec_of(SCHEDULES)] = Field(
        "constant", description=f"learning rate by version: {forms(SCHEDULES)}"
    )
    warm_up: int = Field(0, ge=0, description="versions over which the learning rate rises to its full value")
    warm_start: int = Field(0, ge=0, description="batches that one worker trains on alone before the others begin")
    momentum_correction: bool = Field(
        False, description="take from the momentum what asynchrony adds, 1 − 1/workers in mode async"
    )
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = Field(
        "sgd", description=f"update rule on the server: {', '.join(OPTIMIZERS)}"
    )
    clip_norm: float = Field(0.0, ge=0, description="largest norm of a whole gradient; 0 does not clip")
    codec: Annotated[str, AfterValidator(_known_codec)] = Field(
        "float32", description=f"of pushes: {', '.join(CODECS)}"
    )
    transport: Transport = Field(
        "auto", description="how payloads travel; auto: shared memory to workers that it reaches, gRPC to others"
    )
    lease_batches: int = Field(0, ge=0, description="batches in a lease of samples; 0 chooses by data and workers")
    session_s: float = Field(10.0, ge=1, description="a worker that is silent for so long is taken for dead")
    checkpoint_every: Annotated[str, AfterValidator(_known_interval)] = Field(
        "2s", description="time (2s) or updates (500) between two checkpoints; off: none"
    )
    checkpoint_keep: int = Field(3, ge=1, le=10_000, description="checkpoints to keep")
    record: Literal["auto", "on", "off"] = Field(
        "auto", description="keep what `downpour replay` needs; auto: for models of at most 16,777,216 weights"
    )
    reconnect_s: float = Field(
        60.0, gt=0, le=86_400, description="how long a server that died is waited for before the job fails"
    )
    idle_timeout_s: float = Field(600.0, ge=0, description="a job that no worker serves for so long fails; 0: it waits")
    drain_timeout_s: float = Field(
        7.0, gt=0, le=86_400, description="a job that is asked to end and has not saved its model by then fails"
    )
    nonfinite_limit: int = Field(10, ge=1, description="gradients with NaN or Inf in a row after which a worker stops")

    @property
    def hyper(self) -> Hyperparameters:
        """The given hyperparameters of the optimizer; those that are not given are None."""
        given = hyperparameters_of(self)
        if self.optimizer == "sgd" and given["learning_rate"] is None:
            given["learning_rate"] = REFERENCE_LEARNING_RATE
        return given

    @property
    def effective_learning_rate(self) -> float:
        """The step size η, given or by default."""
        return resolve(self.optimizer, self.hyper)["learning_rate"]

    @model_validator(mode="after")
    def _hyper_of_optimizer(self) -> Self:
        resolve(self.optimizer, self.hyper)
        return self

    @model_validator(mode="after")
    def _can_progress(self) -> Self:
        refusal = refusal_of(self) or refusal_of_steps(self)
        if refusal:
            raise ValueError(refusal)
        return self


class ServerSettings(JobSettings, AccessSettings, LogSettings):
    """One parameter-server process. Shard 0 also coordinates the job."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "this server": (
            "bind",
            "advertise",
            "shard",
            "coordinator",
            "runs_dir",
            "run_dir",
            "resume",
            "start_timeout_s",
            "script",
            "admitted",
            "doorbell_dir",
        ),
        "access": ("tls_dir", "token_file", "insecure"),
        "operation": ("metrics_port", "metrics_host", "tensorboard", "log_format"),
        **JobSettings.groups,
    }

    bind: Address = Field("127.0.0.1:0", description="HOST:PORT to listen on; port 0 lets the system choose")
    advertise: str | None = Field(
        None, description="HOST:PORT under which others reach this server (default: as bound)"
    )
    shard: int = Field(0, ge=0, description="number of this shard, from 0")
    coordinator: Address | None = Field(None, description="address of shard 0 (needed by every other shard)")
    runs_dir: str = Field("runs", description="folder of the run directories")
    run_dir: str | None = Field(None, description="this run's own directory (default: a new one in the runs folder)")
    insecure: bool = Field(False, description="listen beyond loopback without TLS or without a token")
    metrics_port: int | None = Field(
        None, ge=0, lt=65536, description="port on which Prometheus fetches metrics; 0 lets the system choose"
    )
    metrics_host: str = Field("127.0.0.1", description="address on which it does")
    tensorboard: bool = Field(True, description="write event files for TensorBoard into the run directory")
    resume: bool = Field(
        False, description="go on from the newest checkpoint in --run-dir (default: the newest run, unless it ended)"
    )
    start_timeout_s: float = Field(60.0, gt=0, description="training starts so long after the first worker is ready")
    script: bool = Field(
        False, description="serve a script's model.fit: it names model, optimizer and data (see docs/keras.md)"
    )
    admitted: int = Field(
        4, ge=1, description="large push-pulls over gRPC that are in memory at once; others wait unread"
    )
    doorbell_dir: Annotated[str | None, AfterValidator(_short_enough)] = Field(
        None,
        description="folder of the socket of shared memory, for workers in other containers of this host that see it "
        "at the same path (default: none; an abstract name)",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ServerSettings:
        if self.shard >= self.shards and self.coordinator is None:
            raise ValueError(
                f"--shard must lie below --shards, {self.shards}; received {self.shard}. Give shard 0 "
                f"--shards {self.shard + 1} or more, and this one --coordinator with its address"
            )
        if self.shard > 0 and self.coordinator is None:
            raise ValueError(
                f"--shard {self.shard} needs --coordinator, the address of shard 0, which it prints when it listens"
            )
        if self.shard == 0 and self.coordinator is not None:
            raise ValueError("shard 0 is the coordinator: give --coordinator to the other shards only")
        return self
