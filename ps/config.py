"""The settings of the job and of its servers: the single source of their flags, variables and defaults."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from downpour.protos.codecs.codec import CODECS
from downpour.protos.credentials import AccessSettings
from downpour.protos.logs import LogSettings
from downpour.protos.settings import Address, one_of
from downpour.protos.transports import AUTO, TRANSPORTS, transport_names
from downpour.ps.config_checks import refusal_of, refusal_of_optimizer, refusal_of_steps, steps_at_constant_rate
from downpour.ps.config_values import known_codec, known_interval, known_transport, short_enough
from downpour.ps.core.consistency import MODES
from downpour.ps.core.registry import forms, spec_of
from downpour.ps.core.rules.hyperparameters import Hyperparameters, known_hyperparameters, resolve
from downpour.ps.core.rules.update_rules import OPTIMIZERS
from downpour.ps.core.schedules import SCHEDULES
from downpour.ps.core.staleness import POLICIES
from downpour.ps.optimizer_settings import REFERENCE_LEARNING_RATE, OptimizerSettings, hyperparameters_of

TRUE = ("1", "on", "t", "true", "y", "yes")  # as in a variable
OF_SCRIPT = {"model": "script", "dataset": "script"}  # the names in the job of a script


def uses_schedule(mode: str) -> bool:
    """Return whether the servers make the steps of a mode, so that `--schedule` has an effect."""
    return not steps_at_constant_rate(mode)


class JobSettings(OptimizerSettings):
    """The settings that define a job, however its processes are started. The coordinator owns them."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "model and data": (
            "model", "dataset", "validation_split", "epochs", "early_stopping", "batch_size", "seed",
        ),
        "cluster": ("workers", "shards", "transport", "codec", "lease_batches", "session_s"),
        "asynchrony": (
            "mode", "push_every", "fetch_every", "overlap", "staleness_policy", "version_memory", "schedule", "warm_up",
            "warm_start", "momentum_correction",
        ),
        "durability": (
            "checkpoint_every", "checkpoint_keep", "record", "reconnect_s", "idle_timeout_s", "drain_timeout_s",
        ),
        "optimizer": ("optimizer", *known_hyperparameters(), "clip_norm", "nonfinite_limit"),
    }  # fmt: skip

    model: str = Field(
        "sigmoid100", description="Model: a name of the registry, or module:function that returns a model."
    )
    dataset: str = Field("mnist", description="Dataset: a name of the registry, or the path of an .npz file.")
    workers: int = Field(2, ge=1, le=100_000, description="Number of workers that training waits for, at most 60 s.")
    shards: int = Field(1, ge=1, le=1024, description="Number of server processes that the weights are divided among.")
    epochs: int = Field(10, ge=1, description="Number of passes over the training data.")
    early_stopping: int = Field(
        0, ge=0, description="Stop after this number of epochs without a lower validation loss. 0: never."
    )
    batch_size: int = Field(32, ge=1, description="Number of samples per gradient.")
    validation_split: float = Field(
        0.05, ge=0, lt=1, description="Fraction of the training data, from its end, that is held out for validation."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the initial weights and of the order of the samples.")
    mode: Annotated[str, spec_of(MODES)] = Field("async", description=f"Consistency mode: {forms(MODES)}.")
    push_every: int = Field(1, ge=1, le=100_000, description="Number of local steps whose gradients one push sums up.")
    fetch_every: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Number of local steps between two pulls of weights (default: as --push-every).",
    )
    overlap: bool = Field(
        False,
        description="Compute the next gradient while a push-pull is in flight. This is faster and adds staleness.",
    )
    staleness_policy: Annotated[str, spec_of(POLICIES)] = Field(
        "none", description=f"Compensation of staleness: {forms(POLICIES)}."
    )
    version_memory: int = Field(
        1024,
        ge=0,
        description="Memory of each shard, in MiB, for the earlier weights that dc_asgd needs.",
    )
    schedule: Annotated[str, spec_of(SCHEDULES)] = Field(
        "constant", description=f"Learning rate by version: {forms(SCHEDULES)}."
    )
    warm_up: int = Field(
        0, ge=0, description="Number of versions over which the learning rate rises to its full value."
    )
    warm_start: int = Field(
        0, ge=0, description="Number of batches that one worker trains on alone before the others start."
    )
    momentum_correction: bool = Field(
        False, description="Reduce the momentum by the implicit momentum of asynchrony, 1 − 1/workers in mode async."
    )
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = Field(
        "sgd", description=f"Optimizer of the servers: {', '.join(OPTIMIZERS)}."
    )
    clip_norm: float = Field(
        0.0, ge=0, description="Largest norm of a gradient over all shards. 0: gradients are not clipped."
    )
    codec: Annotated[str, AfterValidator(known_codec)] = Field(
        "float32", description=f"Codec of pushes: {', '.join(CODECS)}."
    )
    transport: Annotated[str, AfterValidator(known_transport)] = Field(
        AUTO,
        description=f"Transport of payloads: {', '.join(transport_names())}. auto: the first that reaches the worker. "
        + " ".join(f"{name}: {row.description}." for name, row in TRANSPORTS.items()),
    )
    lease_batches: int = Field(
        0,
        ge=0,
        description="Number of batches in a lease of samples. 0: chosen from the data and the number of workers.",
    )
    session_s: float = Field(
        10.0, ge=1, description="A session expires this long after the last heartbeat of its worker."
    )
    checkpoint_every: Annotated[str, AfterValidator(known_interval)] = Field(
        "2s",
        description="Interval between two checkpoints: a time (2s) or a number of updates (500). off: no checkpoints.",
    )
    checkpoint_keep: int = Field(3, ge=1, le=10_000, description="Number of checkpoints to keep.")
    record: Literal["auto", "on", "off"] = Field(
        "auto", description="Record what `downpour replay` needs. auto: for models of at most 16,777,216 weights."
    )
    reconnect_s: float = Field(
        60.0, gt=0, le=86_400, description="How long the job waits for a server that does not answer before it fails."
    )
    idle_timeout_s: float = Field(
        600.0, ge=0, description="The job fails after this time without workers. 0: it waits without limit."
    )
    drain_timeout_s: float = Field(
        7.0,
        gt=0,
        le=86_400,
        description="A job that is asked to stop must save its model within this time, or it fails.",
    )
    nonfinite_limit: int = Field(
        10, ge=1, description="A worker stops after this number of consecutive non-finite gradients."
    )

    @property
    def hyper(self) -> Hyperparameters:
        """The given hyperparameters of the optimizer; those that are not given are None."""
        given = hyperparameters_of(self)
        if self.optimizer == "sgd" and given["learning_rate"] is None:
            given["learning_rate"] = REFERENCE_LEARNING_RATE
        return given

    @property
    def effective_learning_rate(self) -> float:
        """The learning rate η, given or by default."""
        return resolve(self.optimizer, self.hyper)["learning_rate"]

    @property
    def optimizer_is_known(self) -> bool:
        """Whether the settings name the optimizer of the job; that of a script arrives with its first worker."""
        return True

    @model_validator(mode="after")
    def _hyper_of_optimizer(self) -> Self:
        resolve(self.optimizer, self.hyper)
        return self

    @property
    def without_progress(self) -> str:
        """Why a job with these settings would never progress or be meaningless; empty if it can work."""
        return refusal_of(self) or refusal_of_steps(self)

    @model_validator(mode="after")
    def _can_progress(self) -> Self:
        refusal = self.without_progress
        if self.optimizer_is_known:
            refusal = refusal or refusal_of_optimizer(self)
        if refusal:
            raise ValueError(refusal)
        return self


class ServerSettings(JobSettings, AccessSettings, LogSettings):
    """Run one parameter-server process. Shard 0 also coordinates the job."""

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
            "spread_validation",
            "fresh_workers",
            "replay_of",
            "admitted",
            "doorbell_dir",
            "tcp_port",
            "tcp_advertise",
        ),
        "access": ("tls_dir", "token_file", "insecure"),
        "operation": ("metrics_port", "metrics_host", "tensorboard", "log_format"),
        **JobSettings.groups,
    }

    bind: Address = Field(
        "127.0.0.1:0", description="Address to listen on, HOST:PORT. With port 0 the system chooses the port."
    )
    advertise: Address | None = Field(
        None, description="Address under which other processes reach this server, HOST:PORT (default: as bound)."
    )
    shard: int = Field(0, ge=0, description="Number of this shard, from 0.")
    coordinator: Address | None = Field(None, description="Address of shard 0. Every other shard needs it.")
    runs_dir: str = Field("runs", description="Folder that contains the run directories.")
    run_dir: str | None = Field(None, description="Directory of this run (default: a new one in the runs folder).")
    insecure: bool = Field(False, description="Allow listening beyond loopback without TLS or without a token.")
    metrics_port: int | None = Field(
        None,
        ge=0,
        lt=65536,
        description="Port of the Prometheus endpoint. With 0 the system chooses it (default: no endpoint).",
    )
    metrics_host: str = Field("127.0.0.1", description="Address of the Prometheus metrics endpoint.")
    tensorboard: bool = Field(True, description="Write event files for TensorBoard to the run directory.")
    resume: bool = Field(
        False,
        description="Resume from the newest checkpoint in --run-dir, or in the newest run if it has not ended.",
    )
    start_timeout_s: float = Field(
        60.0, gt=0, description="Training starts this long after the first worker is ready, even if others are missing."
    )
    script: bool = Field(
        False,
        description="Serve the model.fit of a script, which defines model, optimizer and data (see docs/keras.md).",
    )
    spread_validation: bool = Field(
        False,
        description="With --script: each worker evaluates a part of the validation data after an epoch, instead of "
        "worker 0 all of them.",
    )
    fresh_workers: bool = Field(
        False, description="With --resume: the workers of a script run it again from its first line."
    )
    replay_of: str | None = Field(
        None,
        description="Folder of the recorded calls whose order this server follows (set by `downpour replay`).",
    )
    admitted: int = Field(
        4,
        ge=1,
        description="Number of large push-pulls over gRPC or TCP that are in memory at the same time; the server reads "
        "further ones later.",
    )
    doorbell_dir: Annotated[str | None, AfterValidator(short_enough)] = Field(
        None,
        description="Folder for the socket of shared memory, for workers in other containers of this host that "
        "see the folder at the same path (default: none; the socket has an abstract name).",
    )
    tcp_port: int = Field(
        0,
        ge=0,
        lt=65536,
        description="Port of the TCP transport, at the host of --bind. With port 0 the system chooses the port.",
    )
    tcp_advertise: Address | None = Field(
        None,
        description="Address under which workers reach the TCP transport, HOST:PORT (default: the host of --advertise "
        "and the bound port).",
    )

    @property
    def optimizer_is_known(self) -> bool:
        """Whether the settings name the optimizer of the job; that of a script arrives with its first worker."""
        return not self.script

    @model_validator(mode="before")
    @classmethod
    def _named_by_script(cls, values: Any) -> Any:
        """Give the job of a script no model and no data of the registry; its first worker names the model."""
        if isinstance(values, dict) and str(values.get("script", "")).lower() in TRUE:
            return {**OF_SCRIPT, **values}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> ServerSettings:
        if self.shard >= self.shards and self.coordinator is None:
            raise ValueError(
                f"--shard must lie below --shards, {self.shards}; received {self.shard}. Give shard 0 "
                f"--shards {self.shard + 1} or more, and this one --coordinator with its address"
            )
        if self.shard >= self.shards and "shards" in self.model_fields_set:
            raise ValueError(
                f"--shard must lie below --shards, {self.shards}; received {self.shard}. Give it the number of the job"
            )
        if self.shard > 0 and self.coordinator is None:
            raise ValueError(
                f"--shard {self.shard} needs --coordinator, the address of shard 0, which it prints when it listens"
            )
        if self.shard == 0 and self.coordinator is not None:
            raise ValueError("shard 0 is the coordinator: give --coordinator to the other shards only")
        return self
