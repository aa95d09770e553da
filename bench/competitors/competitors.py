"""The competitors of a comparison: how each is started, in new processes with a time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from downpour.bench.module_process import module_command
from downpour.deploy.launch import child
from downpour.deploy.launch.environment import python_path
from downpour.deploy.launch.processes import ParentPipe
from downpour.protos.logs import reason_of

TERMINATE_S = 15.0
TAIL_LINES = 12


class CompetitorError(RuntimeError):
    """A competitor's process failed, or did not end in time."""


@dataclass(frozen=True)
class TrainingSpec:
    """The training task that every competitor receives.

    Attributes:
        model: The name of the model.
        data: The name of a dataset, or path of an `.npz` file.
        epochs: The number of epochs.
        batch_size: The number of samples of a step.
        learning_rate: The learning rate.
        seed: The seed of the weights and the order of the samples.
        workers: The number of workers.
        threads: TensorFlow threads of each process.
        steps_per_call: The number of steps in one call of competitors that make several steps per call.
        validation_split: The fraction of the training samples that is held out.
    """

    model: str
    data: str
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    workers: int = 2
    threads: int = 1
    steps_per_call: int = 20
    validation_split: float = 0.0


Run = Callable[[TrainingSpec, Path, float], dict[str, Any]]


@dataclass(frozen=True)
class Competitor:
    """A row of the comparison.

    Attributes:
        what: The description for the report.
        run: A function that trains, given the task, an empty folder and the time limit in s. It returns at least
            `samples`, `wall_s` and `samples_per_s`.
    """

    what: str
    run: Run


def train(job: TrainingSpec, folder: Path, timeout_s: float, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run `downpour train` and return the content of its `summary.json`.

    Args:
        job: The training task.
        folder: The parent folder of the run directory.
        timeout_s: The time limit, including start and end.
        extra: Additional flags of `downpour train`.

    Raises:
        CompetitorError: The command failed, exceeded the limit, or wrote no summary.
    """
    command = [
        *module_command("downpour.deploy.cli", "train", *common_flags(job), "--dataset", job.data),
        *("--workers", str(job.workers), "--validation-split", str(job.validation_split)),
        *("--runs-dir", str(folder), *extra),
    ]
    bounded(command, timeout_s)
    try:
        summary: dict[str, Any] = json.loads((folder / "latest" / "summary.json").read_text())
    except (OSError, ValueError) as error:
        raise CompetitorError(f"downpour train must write a summary.json. Received: {reason_of(error)}") from error
    return summary


def last_line(command: list[str], timeout_s: float) -> dict[str, Any]:
    """Run a command whose last line of output is a JSON object, and return the object."""
    output = bounded(command, timeout_s).strip().splitlines()
    try:
        result: dict[str, Any] = json.loads(output[-1])
    except (IndexError, ValueError) as error:
        raise CompetitorError(
            f"{_name_of(command)} must print a JSON object on its last line. Received: {output[-1:]}"
        ) from error
    return result


def bounded(command: list[str], timeout_s: float) -> str:
    """Run a command and return its standard output; no process that it started is left when this returns.

    The command receives SIGTERM if this process ends first, even by SIGKILL.

    Raises:
        CompetitorError: The command exited with a status other than 0, or was ended after `timeout_s`.
    """
    pipe = ParentPipe()
    tie = [sys.executable, "-I", "-S", child.__file__, str(os.getpid()), str(int(signal.SIGTERM))]
    process = subprocess.Popen(
        [*tie, str(pipe.reading), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(os.environ),
        pass_fds=(pipe.reading,),
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _end(process)
        raise CompetitorError(f"{_name_of(command)} must end within {timeout_s:.0f} s. It did not.") from None
    except BaseException:
        _end(process)
        raise
    finally:
        pipe.close()
    if process.returncode != 0:
        tail = "\n".join((errors + output).strip().splitlines()[-TAIL_LINES:])
        raise CompetitorError(f"{_name_of(command)} must exit with status 0. Received: {process.returncode}\n{tail}")
    return output


def _name_of(command: list[str]) -> str:
    """Return a short form of a command for messages: the module, or the first words after the interpreter."""
    return command[command.index("-m") + 1] if "-m" in command else " ".join(command[1:3])


def end_on_sigterm() -> None:
    """Make SIGTERM end this process with an exception, so that temporary folders are removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of all competitors: without settings of the caller, CPU only, and without log output."""
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.upper().startswith(("DOWNPOUR_", "KERAS_BACKEND", "OMP_", "TF_"))
    }
    path = python_path(kept.get("PYTHONPATH", ""))
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    return {**kept, **quiet, **({"PYTHONPATH": path} if path else {})}


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and its group with SIGTERM, and with SIGKILL if it does not end in time."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.communicate(timeout=TERMINATE_S)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def common_flags(job: TrainingSpec) -> list[str]:
    """Return the flags of a task that every competitor in a process of its own has."""
    return [
        *("--model", job.model, "--epochs", str(job.epochs), "--batch-size", str(job.batch_size)),
        *("--learning-rate", str(job.learning_rate), "--seed", str(job.seed), "--threads", str(job.threads)),
    ]


def _downpour(*extra: str, workers: int | None = None, local: bool = False) -> Run:
    """Return a run of downpour; with `local`, the steps of one call of the others are the local steps of one push.

    The clipping and the schedule that a model recommends are disabled, because the others do not have them.
    """

    def run(job: TrainingSpec, folder: Path, timeout_s: float) -> dict[str, Any]:
        plain = ("--clip-norm", "0", "--schedule", "constant")
        steps = ("--push-every", str(job.steps_per_call)) if local else ()
        summary = train(replace(job, workers=workers or job.workers), folder, timeout_s, (*plain, *extra, *steps))
        staleness = summary.get("staleness") or {}
        return {
            **{name: summary[name] for name in ("samples", "wall_s", "samples_per_s", "transport")},
            "loss": summary.get("train_loss"),
            "accuracy": summary.get("train_accuracy"),
            "mean_staleness": staleness.get("mean"),
        }

    return run


def _tensorflow(several: bool) -> Run:
    def run(job: TrainingSpec, folder: Path, timeout_s: float) -> dict[str, Any]:
        module = "downpour.bench.competitors.tf_parameter_server"
        command = module_command(module, *common_flags(job), "--data", job.data)
        command += ["--workers", str(job.workers), "--scratch", str(folder), "--steps-per-call"]
        return last_line([*command, str(job.steps_per_call if several else 1)], timeout_s)

    return run


def fit(
    job: TrainingSpec, timeout_s: float, steps_per_execution: int = 1, extra: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Run `model.fit` in a new process and return the result of `downpour.bench.competitors.keras_fit`."""
    command = module_command("downpour.bench.competitors.keras_fit", *common_flags(job), "--data", job.data)
    command += ["--validation-split", str(job.validation_split)]
    return last_line([*command, "--steps-per-execution", str(steps_per_execution), *extra], timeout_s)


def _script(workers: int) -> Run:
    """Return a run of `model.fit` by `downpour run`, with the same script as `fit`."""

    def run(job: TrainingSpec, folder: Path, timeout_s: float) -> dict[str, Any]:
        command = module_command("downpour.deploy.cli", "run", "--workers", str(workers), "--runs-dir", str(folder))
        command += ["--threads", str(job.threads), "--seed", str(job.seed)]
        command += ["-m", "downpour.bench.competitors.keras_fit", *common_flags(job), "--data", job.data]
        result = last_line([*command, "--validation-split", str(job.validation_split)], timeout_s)
        summary = json.loads((folder / "latest" / "summary.json").read_text())
        return {**result, "communication_share": summary.get("communication_share")}

    return run


COMPETITORS: Mapping[str, Competitor] = {
    "downpour": Competitor("downpour, 2 workers, default transport", _downpour()),
    "downpour_grpc": Competitor("downpour, 2 workers, gRPC only", _downpour("--transport", "grpc")),
    "downpour_20": Competitor("downpour, 2 workers, 20 local steps per push (--push-every 20)", _downpour(local=True)),
    "downpour_1": Competitor("downpour, 1 worker, default transport", _downpour(workers=1)),
    "script": Competitor("model.fit by downpour run, 2 workers", _script(2)),
    "script_1": Competitor("model.fit by downpour run, 1 worker", _script(1)),
    "tf_ps": Competitor("ParameterServerStrategy, 2 workers, 1 step per function", _tensorflow(False)),
    "tf_ps_20": Competitor("ParameterServerStrategy, 2 workers, 20 steps per function", _tensorflow(True)),
    "fit": Competitor("model.fit, one process", lambda job, _, timeout_s: fit(job, timeout_s)),
    "fit_20": Competitor(
        "model.fit, one process, steps_per_execution=20",
        lambda job, _, timeout_s: fit(job, timeout_s, job.steps_per_call),
    ),
    "fit_all_threads": Competitor(
        "model.fit, one process, TensorFlow's default threads",
        lambda job, _, timeout_s: fit(job, timeout_s, extra=("--threads", "0")),
    ),
}
