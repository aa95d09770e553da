"""`downpour evaluate` and `downpour export`: evaluate or convert the model of a run, or a `.keras` file.

This process never loads TensorFlow; it replaces itself by a process that does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from downpour.deploy.config import EvaluateSettings, ExportCommandSettings, is_saved_model
from downpour.deploy.launch.environment import python_path

SCRIPT = "script"  # the dataset in the summary of a script's run
SUFFIX = {"keras": ".keras", "savedmodel": "", "tflite": ".tflite"}


class NoModel(Exception):
    """There is no trained model at the given path."""


def evaluate(settings: EvaluateSettings) -> NoReturn:
    """Replace this process by one that evaluates a model, by default on the dataset of its run."""
    file, summary = find(settings.run)
    if summary.get("dataset") == SCRIPT and not settings.model:
        _evaluate_script(file, settings)
    dataset = settings.dataset or summary.get("dataset") or "mnist"
    flags = [f"--file={file}", f"--dataset={dataset}"]
    model = settings.model or summary.get("model")
    # A function is called only if the command line names it: a file of a run must not name code to execute.
    if model and (settings.model or ":" not in str(model)):
        flags.append(f"--model={model}")
    if settings.loss:
        flags.append(f"--loss={settings.loss}")
    if scale := settings.scale or _scale_of(file.with_name("config.json")):
        flags.append(f"--scale={scale}")
    replace_process("downpour.worker.examine", flags)


def _evaluate_script(file: Path, settings: EvaluateSettings) -> NoReturn:
    """Replace this process by one that evaluates the model of a script as the script has compiled it.

    Raises:
        NoModel: The data are not given, or a setting that the script defines is.
    """
    if settings.dataset is None:
        raise NoModel(
            "--dataset must be given for the run of a script, whose data are not recorded: the path of an .npz file "
            "with x_train, y_train, x_test and y_test"
        )
    if settings.loss or settings.scale:
        raise NoModel("--loss and --scale are those of the script, which its model was compiled with: leave them out")
    replace_process("downpour.worker.examine", [f"--file={file}", f"--dataset={settings.dataset}", "--compiled"])


def export(settings: ExportCommandSettings) -> NoReturn:
    """Replace this process by one that writes a model in another format, by default next to the original."""
    file, _ = find(settings.run)
    to = settings.to or str(file.with_name(file.stem + "-export" + SUFFIX[settings.format]))
    replace_process("downpour.worker.export", [f"--file={file}", f"--format={settings.format}", f"--to={to}"])


def find(run: str) -> tuple[Path, dict[str, Any]]:
    """Return the `.keras` file of a run directory with the run's summary, or a file itself with an empty dict.

    Raises:
        NoModel: The path contains no trained model.
    """
    path = Path(run)
    if path.is_dir():
        file = path / "model.keras"
        if not file.is_file():
            raise NoModel(f"RUN must be a run that ended successfully; {path} has no model.keras")
        try:
            summary = json.loads((path / "summary.json").read_text())
        except (OSError, ValueError, RecursionError):
            summary = {}
        return file, summary if isinstance(summary, dict) else {}
    if not path.is_file():
        raise NoModel(f"RUN must be a run directory or a .keras file; {path.absolute()} does not exist")
    if not is_saved_model(path):
        raise NoModel(f"RUN must be a run directory, or a .keras file that Keras has saved; {path.absolute()} is none")
    return path, {}


def _scale_of(config: Path) -> str | None:
    """Return the factor on the samples that the workers of a run have used, or None if it is not recorded."""
    try:
        scale = json.loads(config.read_text())["worker"]["scale"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return str(scale)


def replace_process(module: str, flags: list[str]) -> NoReturn:
    """Replace this process by `python -m module` with `flags`, which Ctrl-C ends without a traceback."""
    environment = {**os.environ, "PYTHONPATH": python_path(os.environ.get("PYTHONPATH", ""))}
    os.execve(sys.executable, [sys.executable, "-P", "-m", "downpour.deploy.command", module, *flags], environment)
