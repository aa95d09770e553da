"""Settings of one worker process; the coordinator describes the job."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from downpour.protos.credentials import AccessSettings
from downpour.protos.logs import LogSettings
from downpour.protos.settings import Address, Settings


def factor_of(value: str) -> float | None:
    """Return the factor that a number such as `0.5` or a fraction such as `1/255` names; None for `auto`.

    Raises:
        ValueError: The value is neither.
    """
    if value == "auto":
        return None
    above, _, below = value.partition("/")
    try:
        factor = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError("must be auto, a number above 0 such as 1, or a fraction such as 1/255")
    return factor


def _known_scale(value: str) -> str:
    factor_of(value)
    return value


Scale = Annotated[str, AfterValidator(_known_scale)]
SCALE = "Factor on the samples. auto: 1/255 for pixels (uint8) unless the model scales them, 1 for other values."


class WorkerSettings(AccessSettings, LogSettings):
    """Run one worker process, which receives the description of the job from the coordinator."""

    server: Address = Field(description="Address of the coordinator (shard 0), HOST:PORT.")
    worker: int | None = Field(None, ge=0, description="Number of this worker (default: assigned by the coordinator).")
    evaluator: bool = Field(False, description="Take evaluation tasks only.")
    model: str | None = Field(
        None,
        description="Function of the model, module:function; required if the job has one (never accepted from the "
        "server).",
    )
    dataset: str | None = Field(
        None, description="Path of the .npz file; required if the job has one (never accepted from the server)."
    )
    weights: str | None = Field(None, description="File of initial weights, .keras or .weights.h5.")
    scale: Scale = Field("auto", description=SCALE)
    threads: int = Field(1, ge=1, description="TensorFlow's threads within an operation.")
    gpus: int | None = Field(None, ge=0, description="Number of GPUs that TensorFlow must find (default: any).")
    xla: Literal["auto", "on", "off"] = Field(
        "auto", description="Compile the gradient with XLA. auto: if that is faster on this machine."
    )
    connect_timeout_s: float = Field(60.0, gt=0, description="Time limit for the first connection to the server.")
    call_timeout_s: float = Field(30.0, gt=0, description="Deadline of a call and of an awaited message.")


class ScriptSettings(AccessSettings):
    """Run a Keras script as one worker of a cluster."""

    server: Address = Field(description="HOST:PORT of the coordinator (shard 0), which was started with --script.")
    worker: int = Field(0, ge=0, description="Number of this worker; only worker 0 displays its output.")
    end_job: bool = Field(False, description="End the job when this worker's script has ended without an error.")
    threads: int = Field(1, ge=1, description="TensorFlow's threads within an operation.")
    gpus: int | None = Field(None, ge=0, description="Number of GPUs that TensorFlow must find (default: any).")
    shared_dir: str = Field("", description="Folder in which the workers of one machine keep each other's files apart.")
    private_files: bool = Field(
        False, description="Leave the real files as they are in worker 0, too (set by `downpour replay`)."
    )
    model_file: str = Field("", description="Path, ending in .keras, to save the model to that was fitted last.")
    completed_dir: str = Field("", description="Folder with the weights of the calls of fit that are complete.")
    connect_timeout_s: float = Field(60.0, gt=0, description="Time limit for the first connection to the server.")
    call_timeout_s: float = Field(30.0, gt=0, description="Deadline of a call and of an awaited message.")


def named(own: str | None, jobs: str, what: str) -> str:
    """Return what to load: the worker's own flag if it is given, else the job's registry name.

    Raises:
        ValueError: The job names a function or a file, which a worker never accepts from a server.
    """
    if own is not None:
        return own
    if ":" in jobs or "/" in jobs or jobs.endswith(".npz"):
        raise ValueError(
            f"the job's {what} is {jobs!r}, which is not a registry name and is never accepted from the server: "
            f"start this worker with --{what} {jobs}"
        )
    return jobs


class ExportSettings(Settings):
    """Write a trained model in a format for other programs."""

    file: str = Field(description="Path of the .keras file.")
    format: Literal["keras", "savedmodel", "tflite"] = Field("keras", description="Format of the file.")
    to: str = Field(description="Path to write to.")


class ExamineSettings(Settings):
    """Compute loss and accuracy of a trained model on the test set."""

    file: str = Field(description="Path of the .keras file.")
    dataset: str = Field("mnist", description="Name of a dataset, or path of an .npz.")
    model: str = Field("", description="Name of the model, or module:function, from which the loss follows.")
    compiled: bool = Field(False, description="Evaluate as the file was compiled, with its loss and its metrics.")
    loss: str = Field("", description="The loss, by Keras's name (default: the one that the file was compiled with).")
    scale: Scale = Field("auto", description=SCALE)
