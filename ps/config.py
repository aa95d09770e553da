"""Settings of the job and of its servers: the one source of their flags, environment and defaults."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from protos.codec import CODECS
from protos.settings import Address, Settings, one_of
from ps.consistency import MODES
from ps.optimizers import OPTIMIZERS, Hyper, resolve
from ps.staleness import POLICIES

Transport = Literal["auto", "grpc"]
REFERENCE_LEARNING_RATE = 0.1  # of the reference model under plain SGD


class JobSettings(Settings):
    """What defines a job, whoever starts its processes. The coordinator owns it."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "model and data": ("model", "dataset", "validation_split", "epochs", "batch_size", "seed"),
        "cluster": ("workers", "shards", "transport", "codec", "lease_batches", "session_s"),
        "asynchrony": ("mode", "staleness"),
        "optimizer": (
            "optimizer", "learning_rate", "momentum", "rho", "beta_1", "beta_2", "epsilon", "weight_decay",
            "initial_accumulator", "clip_norm", "nonfinite_limit",
        ),
    }  # fmt: skip

    model: str = Field(
        "sigmoid100", description="model: a registry name, or module:function that returns one"
    )
    dataset: str = Field("mnist", description="data: mnist, fashion_mnist, or a path to an .npz")
    workers: int = Field(
        2, ge=1, le=100_000, description="workers to wait for before training starts (at most 60 s)"
    )
    shards: int = Field(1, ge=1, le=1024, description="server processes that the weights are cut into")
    epochs: int = Field(10, ge=1, description="passes over the training data")
    batch_size: int = Field(32, ge=1, description="samples per gradient")
    validation_split: float = Field(
        0.05, ge=0, lt=1, description="fraction of the training data held out, from its end"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of initial weights and of the order of the samples")
    mode: Annotated[str, one_of(MODES)] = Field("async", description=f"consistency: {', '.join(MODES)}")
    staleness: Annotated[str, one_of(POLICIES)] = Field(
        "none", description=f"what a stale gradient is worth: {', '.join(POLICIES)}"
    )
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = Field(
        "sgd", description=f"update rule on the server: {', '.join(OPTIMIZERS)}"
    )
    learning_rate: float | None = Field(
        None, gt=0, description="step size η (default: 0.1 for sgd, else by optimizer)"
    )
    momentum: float | None = Field(None, ge=0, lt=1, description="of momentum, nesterov, rmsprop")
    rho: float | None = Field(None, ge=0, lt=1, description="of rmsprop: decay of the mean square")
    beta_1: float | None = Field(None, ge=0, lt=1, description="of adam, adamw: decay of the mean")
    beta_2: float | None = Field(None, ge=0, lt=1, description="of adam, adamw: decay of the mean square")
    epsilon: float | None = Field(
        None, gt=0, description="of adagrad, rmsprop, adam, adamw: keeps the divisor above 0"
    )
    weight_decay: float | None = Field(None, ge=0, description="of adamw")
    initial_accumulator: float | None = Field(
        None, ge=0, description="of adagrad: start of the sum of squares"
    )
    clip_norm: float = Field(0.0, ge=0, description="largest norm of a whole gradient; 0 does not clip")
    codec: Annotated[str, one_of(CODECS)] = Field("float32", description=f"of pushes: {', '.join(CODECS)}")
    transport: Transport = Field("auto", description="how payloads travel")
    lease_batches: int = Field(
        0, ge=0, description="batches in a lease of samples; 0 chooses by data and workers"
    )
    session_s: float = Field(10.0, ge=1, description="a worker that is silent for so long is taken for dead")
    nonfinite_limit: int = Field(
        10, ge=1, description="gradients with NaN or Inf in a row after which a worker stops"
    )

    @property
    def hyper(self) -> Hyper:
        """The optimizer's hyper-parameters; what is not given is None."""
        given = self.learning_rate
        return Hyper(
            learning_rate=REFERENCE_LEARNING_RATE if given is None and self.optimizer == "sgd" else given,
            momentum=self.momentum,
            rho=self.rho,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            weight_decay=self.weight_decay,
            initial_accumulator_value=self.initial_accumulator,
        )

    @property
    def effective_learning_rate(self) -> float:
        """The step size η, given or by default."""
        return resolve(self.optimizer, self.hyper)["learning_rate"]

    @model_validator(mode="after")
    def _hyper_of_optimizer(self) -> Self:
        resolve(self.optimizer, self.hyper)
        return self


class ServerSettings(JobSettings):
    """One parameter-server process. Shard 0 also coordinates the job."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "this server": (
            "bind",
            "advertise",
            "shard",
            "coordinator",
            "runs_dir",
            "run_dir",
            "start_timeout_s",
        ),
        **JobSettings.groups,
    }

    bind: Address = Field("127.0.0.1:0", description="HOST:PORT to listen on; port 0 lets the system choose")
    advertise: str | None = Field(
        None, description="HOST:PORT under which others reach this server (default: as bound)"
    )
    shard: int = Field(0, ge=0, description="number of this shard, from 0")
    coordinator: Address | None = Field(None, description="address of shard 0 (needed by every other shard)")
    runs_dir: str = Field("runs", description="folder of the run directories")
    run_dir: str | None = Field(
        None, description="this run's own directory (default: a new one in the runs folder)"
    )
    start_timeout_s: float = Field(
        60.0, gt=0, description="training starts so long after the first worker is ready"
    )

    @model_validator(mode="after")
    def _consistent(self) -> ServerSettings:
        if self.shard >= self.shards and self.coordinator is None:
            raise ValueError(f"--shard must lie below --shards, {self.shards}; received {self.shard}")
        if self.shard > 0 and self.coordinator is None:
            raise ValueError(f"--shard {self.shard} needs --coordinator, the address of shard 0")
        if self.shard == 0 and self.coordinator is not None:
            raise ValueError("shard 0 is the coordinator: give --coordinator to the other shards only")
        return self
