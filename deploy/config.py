"""Settings of the commands that start and watch a cluster."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from downpour.deploy.runs import RunPath
from downpour.protos.credentials import AccessSettings
from downpour.protos.logs import LogSettings
from downpour.protos.sentences.choices import did_you_mean
from downpour.protos.settings import Address, Settings
from downpour.ps.config import JobSettings, uses_schedule
from downpour.worker.catalog.datasets import DATASETS, DatasetError, load
from downpour.worker.catalog.model_source import check_source
from downpour.worker.catalog.models import MODELS
from downpour.worker.config import SCALE, Scale

HDF5 = b"\x89HDF\r\n\x1a\n"  # the first bytes of such a file
OF_OPTIMIZER = (*JobSettings.groups["optimizer"], "schedule")


def known_model(value: str) -> str:
    """Return `value` if it is a name of the registry, or `module:function` of a module that may build a model."""
    module, colon, function = value.partition(":")
    if not colon:
        if value not in MODELS:
            near = did_you_mean(value, MODELS)
            raise ValueError(f"must be one of {', '.join(MODELS)}{near}, or module:function")
        return value
    if not (function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError("must be module:function, both of them Python names")
    check_source(value)
    return value


def known_dataset(value: str) -> str:
    """Return `value` if it is a name of the registry, or the path of an `.npz` file that can be trained on."""
    if value in DATASETS:
        return value
    if not value.endswith(".npz"):
        near = did_you_mean(value, DATASETS)
        raise ValueError(f"must be one of {', '.join(DATASETS)}{near}, or the path of an .npz file")
    _check_file(
        value, "Create one with numpy.savez(PATH, x_train=…, y_train=…, x_test=…, y_test=…), or correct the path"
    )
    try:
        load(value)  # every worker reads it in the same way, but only after it has loaded TensorFlow
    except DatasetError as error:
        raise ValueError(f"must be a file to train on: {str(error).removesuffix('.')}") from error
    return value


def _check_file(value: str, advice: str) -> None:
    """Raise ValueError unless `value` is the path of a file."""
    path = Path(value)
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"
        raise ValueError(f"must be a file; {path.absolute()} {state}. {advice}")


def _unless_none(check: Callable[[str], str]) -> Callable[[str | None], str | None]:
    return lambda value: None if value is None else check(value)


def is_saved_model(path: Path) -> bool:
    """Return whether a file is a `.keras` archive, or an HDF5 file with the suffix `.h5`."""
    with path.open("rb") as file:
        if path.suffix == ".h5":
            return file.read(len(HDF5)) == HDF5
        return path.suffix == ".keras" and zipfile.is_zipfile(file)


def known_weights(value: str | None) -> str | None:
    """Return the absolute path of a `.keras` or `.weights.h5` file that exists."""
    if value is None:
        return None
    if not value.endswith((".keras", ".weights.h5")):
        raise ValueError("must be the path of a .keras or .weights.h5 file")
    advice = "Correct the path, or omit it to start from new weights"
    _check_file(value, advice)
    if not is_saved_model(Path(value)):
        kind = "a .keras archive" if value.endswith(".keras") else "an HDF5 file"
        raise ValueError(f"must be {kind} that Keras has saved; {Path(value).absolute()} is none. {advice}")
    return str(Path(value).absolute())


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


GPUS_PER_WORKER = (
    "GPUs of each worker: 1, a part such as 0.5, or 0 for none (default: one, which workers share if there are more "
    "workers than GPUs)."
)


class TrainSettings(JobSettings, AccessSettings, LogSettings):
    """Settings of a training on a local cluster with one process per server shard and per worker."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        **JobSettings.groups,
        "processes": (
            "weights",
            "scale",
            "threads",
            "xla",
            "gpus_per_worker",
            "worker_restarts",
            "server_restarts",
            "runs_dir",
            "resume",
        ),
        "access": ("tls_dir", "token_file"),
        "operation": ("metrics_port", "tensorboard", "log_format"),
        "output": ("verbose", "dashboard", "dry_run"),
    }

    model: Annotated[str, AfterValidator(known_model)] = Field(
        "sigmoid100", description=f"Model: {', '.join(MODELS)}, or module:function that returns a Keras model."
    )
    dataset: Annotated[str, AfterValidator(known_dataset)] = Field(
        "mnist",
        description=f"Dataset: {', '.join(DATASETS)}, or the path of an .npz file with x_train, y_train, x_test and "
        "y_test.",
    )
    weights: Annotated[str | None, AfterValidator(known_weights)] = Field(
        None, description="Initial weights: a .keras or .weights.h5 file; layers of other shapes get new weights."
    )
    scale: Scale = Field("auto", description=SCALE)
    workers: int = Field(
        default_factory=lambda: max(2, cores()),
        ge=1,
        le=1024,
        description="Number of worker processes (default: the number of cores, at least 2).",
    )
    threads: int = Field(1, ge=1, le=1024, description="TensorFlow threads of each worker.")
    xla: Literal["auto", "on", "off"] = Field(
        "auto", description="Compile the gradient with XLA. auto: if that is faster on this machine."
    )
    gpus_per_worker: float | None = Field(None, ge=0, le=1, description=GPUS_PER_WORKER)
    worker_restarts: int = Field(3, ge=0, description="Number of times that a worker is restarted after it died.")
    server_restarts: int = Field(
        3, ge=0, description="Number of times that a server is restarted from its latest checkpoint after it died."
    )
    runs_dir: str = Field("runs", min_length=1, description="Parent folder of the run directories.")
    metrics_port: int | None = Field(
        None, ge=0, lt=65536, description="Port of shard 0 that serves metrics to Prometheus."
    )
    tensorboard: bool = Field(True, description="Write event files for TensorBoard into the run directory.")
    resume: RunPath | None = Field(
        None, description="Run to resume from its latest checkpoint, with its settings: a directory, or latest."
    )
    verbose: bool = Field(False, description="Show one line per worker.")
    dashboard: bool = Field(False, description="Serve a page that shows the job, and print its address.")

    dry_run: bool = Field(False, description="Print the commands of all processes, and start none.")

    @model_validator(mode="before")
    @classmethod
    def _recommended(cls, given: Any) -> Any:
        """Add the recommended settings of the model; those of its optimizer only if the optimizer is the same."""
        if not isinstance(given, dict):
            return given
        row = MODELS.get(str(given.get("model", cls.model_fields["model"].default)))
        recommended = dict(row.settings) if row is not None else {}
        if given.get("optimizer", recommended.get("optimizer", "sgd")) != recommended.get("optimizer", "sgd"):
            recommended = {name: value for name, value in recommended.items() if name not in OF_OPTIMIZER}
        if not uses_schedule(str(given.get("mode", "async"))):
            recommended.pop("schedule", None)
        return {**recommended, **given}


class StatusSettings(AccessSettings):
    """The settings of the command `downpour status`."""

    positional: ClassVar[tuple[str, ...]] = ("address",)

    address: str = Field(description="HOST:PORT of the job's coordinator, which is server 0, or a run such as latest.")
    json_: bool = Field(False, description="Print one JSON object.")
    watch: bool = Field(False, description="Follow the job until it ends.")
    every_s: float = Field(1.0, ge=0.1, le=3600, description="Seconds between two updates with --watch and --serve.")
    timeout_s: float = Field(5.0, gt=0, le=600, description="Deadline of a request to the coordinator.")
    serve: Address | None = Field(None, description="Serve the status as JSON over HTTP at HOST:PORT.")


class HealthSettings(AccessSettings):
    """Check whether a server answers and is serving."""

    positional: ClassVar[tuple[str, ...]] = ("address",)

    address: Address = Field(description="HOST:PORT of the server.")
    timeout_s: float = Field(4.0, gt=0, le=600, description="Deadline of the request.")


class EvaluateSettings(Settings):
    """The settings of the command `downpour evaluate`."""

    positional: ClassVar[tuple[str, ...]] = ("run",)

    run: RunPath = Field(description="Run directory such as latest, or a .keras file.")
    dataset: Annotated[str | None, AfterValidator(_unless_none(known_dataset))] = Field(
        None, description="Dataset (default: that of the run; for a file, mnist)."
    )
    loss: str | None = Field(
        None, description="Keras's name of the loss (default: that of the run, or of the file as it was compiled)."
    )
    model: Annotated[str | None, AfterValidator(_unless_none(known_model))] = Field(
        None,
        description="Function of the model, module:function, if the file needs its classes (default: that of the run).",
    )
    scale: Scale | None = Field(None, description="Factor on the samples (default: that of the run, or auto).")


class ExportCommandSettings(Settings):
    """The settings of the command `downpour export`."""

    positional: ClassVar[tuple[str, ...]] = ("run",)

    run: RunPath = Field(description="Run directory such as latest, or a .keras file.")
    format: Literal["keras", "savedmodel", "tflite"] = Field("keras", description="Output format.")
    to: str | None = Field(None, description="Output path (default: next to the model of the run).")
