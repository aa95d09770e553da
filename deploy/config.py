"""Settings of the commands that start and watch a cluster."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from downpour.protos.credentials import AccessSettings
from downpour.protos.logs import LogSettings
from downpour.protos.settings import Address, Settings, did_you_mean
from downpour.ps.config import JobSettings
from downpour.worker.catalog.datasets import DATASETS
from downpour.worker.catalog.models import MODELS

OF_OPTIMIZER = (*JobSettings.groups["optimizer"], "schedule")


def known_model(value: str) -> str:
    """Accepts a name of the registry, or `module:function` where the module can be found."""
    module, colon, function = value.partition(":")
    if not colon:
        if value not in MODELS:
            near = did_you_mean(value, MODELS)
            raise ValueError(f"must be one of {', '.join(MODELS)}{near}, or module:function")
        return value
    if not (function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError("must be module:function, both of them Python names")
    # The top-level package alone is looked for: to look inside it would import it, and TensorFlow with it.
    if importlib.machinery.PathFinder.find_spec(module.split(".")[0], [os.getcwd(), *sys.path]) is None:
        raise ValueError(f"must name a module that can be found from {os.getcwd()} or in the Python path")
    return value


def known_dataset(value: str) -> str:
    """Accepts a name of the registry, or the path of an `.npz` file that exists."""
    if value in DATASETS:
        return value
    if not value.endswith(".npz"):
        near = did_you_mean(value, DATASETS)
        raise ValueError(f"must be one of {', '.join(DATASETS)}{near}, or the path of an .npz file")
    _check_file(
        value, "Write one with numpy.savez(PATH, x_train=…, y_train=…, x_test=…, y_test=…), or correct the path"
    )
    return value


def _check_file(value: str, advice: str) -> None:
    """Raises ValueError unless a path is that of a file."""
    path = Path(value)
    if not path.is_file():
        there = "that is a folder:" if path.is_dir() else "there is none at"
        raise ValueError(f"must be a file; {there} {path.absolute()}. {advice}")


def known_weights(value: str | None) -> str | None:
    """Accepts the path of a file of Keras's."""
    if value is None:
        return None
    if not value.endswith((".keras", ".weights.h5")):
        raise ValueError("must be the path of a .keras or .weights.h5 file")
    _check_file(value, "Correct the path, or leave it out to begin with new weights")
    return str(Path(value).absolute())


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class TrainSettings(JobSettings, AccessSettings, LogSettings):
    """A job on a local cluster: one process per server shard and per worker."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        **JobSettings.groups,
        "processes": ("weights", "threads", "xla", "worker_restarts", "server_restarts", "runs_dir", "resume"),
        "access": ("tls_dir", "token_file"),
        "operation": ("metrics_port", "tensorboard", "log_format"),
        "output": ("verbose",),
    }

    model: Annotated[str, AfterValidator(known_model)] = Field(
        "sigmoid100", description=f"{', '.join(MODELS)}, or module:function that returns a Keras model"
    )
    dataset: Annotated[str, AfterValidator(known_dataset)] = Field(
        "mnist",
        description=f"{', '.join(DATASETS)}, or the path of an .npz with x_train, y_train, x_test, y_test",
    )
    weights: Annotated[str | None, AfterValidator(known_weights)] = Field(
        None, description="file of weights to begin with: .keras or .weights.h5; layers of other shapes begin anew"
    )
    workers: int = Field(
        default_factory=lambda: max(2, cores()),
        ge=1,
        le=1024,
        description="worker processes (default: the number of cores, at least 2)",
    )
    threads: int = Field(1, ge=1, le=1024, description="TensorFlow's threads in each worker")
    xla: Literal["auto", "on", "off"] = Field("auto", description="compile the gradient with XLA; auto times both")
    worker_restarts: int = Field(3, ge=0, description="times that a worker which dies is started again")
    server_restarts: int = Field(
        3, ge=0, description="times that a server which dies is started again from its last checkpoint"
    )
    runs_dir: str = Field("runs", min_length=1, description="folder of the run directories")
    metrics_port: int | None = Field(
        None, ge=0, lt=65536, description="port of shard 0 on which Prometheus fetches metrics"
    )
    tensorboard: bool = Field(True, description="write event files for TensorBoard into the run directory")
    resume: str | None = Field(
        None, description="run directory to go on with, from its last checkpoint; its settings hold"
    )
    verbose: bool = Field(False, description="show every worker")

    @model_validator(mode="before")
    @classmethod
    def _recommended(cls, given: Any) -> Any:
        """What the model's figure was reached with, where nothing else is said; another optimizer has its own."""
        if not isinstance(given, dict):
            return given
        row = MODELS.get(str(given.get("model", cls.model_fields["model"].default)))
        recommended = dict(row.settings) if row is not None else {}
        if given.get("optimizer", recommended.get("optimizer", "sgd")) != recommended.get("optimizer", "sgd"):
            recommended = {name: value for name, value in recommended.items() if name not in OF_OPTIMIZER}
        return {**recommended, **given}


class StatusSettings(AccessSettings):
    """What a running job is doing."""

    positional: ClassVar[tuple[str, ...]] = ("address",)

    address: Address = Field(description="HOST:PORT of the job's coordinator, as the server announced it")
    json_: bool = Field(False, description="print one JSON object")
    watch: bool = Field(False, description="go on until the job ends")
    every_s: float = Field(1.0, ge=0.1, le=3600, description="time between two looks with --watch")
    timeout_s: float = Field(5.0, gt=0, le=600, description="deadline for an answer")
    serve: Address | None = Field(None, description="answer with JSON over HTTP at HOST:PORT until the job ends")


class HealthSettings(AccessSettings):
    """Whether a server is there and serves."""

    positional: ClassVar[tuple[str, ...]] = ("address",)

    address: Address = Field(description="HOST:PORT of the server")
    timeout_s: float = Field(4.0, gt=0, le=600, description="deadline for an answer")


class EvaluateSettings(Settings):
    """Loss and accuracy of a trained model on a test set."""

    positional: ClassVar[tuple[str, ...]] = ("run",)

    run: str = Field(description="run directory, or a .keras file")
    dataset: str | None = Field(None, description="data to evaluate on (default: the run's; of a file, mnist)")
    loss: str | None = Field(None, description="loss, by Keras's name, for a file (default: the run's model's)")


class ExportCommandSettings(Settings):
    """A trained model in the format of another program."""

    positional: ClassVar[tuple[str, ...]] = ("run",)

    run: str = Field(description="run directory, or a .keras file")
    format: Literal["keras", "savedmodel", "tflite"] = Field("keras", description="what to write")
    to: str | None = Field(None, description="path to write to (default: beside the run's model)")
