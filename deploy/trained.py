"""`downpour evaluate` and `downpour export`: what can be done with a run, or with a file of Keras's.

TensorFlow stays out of this process: it turns into one that has it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from downpour.deploy.config import EvaluateSettings, ExportCommandSettings
from downpour.deploy.launch.environment import python_path

SUFFIX = {"keras": ".keras", "savedmodel": "", "tflite": ".tflite"}


class NoModel(Exception):
    """There is no trained model at the place that was named."""


def evaluate(settings: EvaluateSettings) -> NoReturn:
    """Becomes a process that evaluates; the data are those of the run, where nothing else is said."""
    file, facts = find(settings.run)
    dataset = settings.dataset or facts.get("dataset") or "mnist"
    flags = [f"--file={file}", f"--dataset={dataset}"]
    if facts.get("model"):
        flags.append(f"--model={facts['model']}")
    if settings.loss:
        flags.append(f"--loss={settings.loss}")
    become("downpour.worker.examine", flags)


def export(settings: ExportCommandSettings) -> NoReturn:
    """Becomes a process that writes the model in another format, beside the original where nothing else is said."""
    file, _ = find(settings.run)
    to = settings.to or str(file.with_name(file.stem + "-export" + SUFFIX[settings.format]))
    become("downpour.worker.export", [f"--file={file}", f"--format={settings.format}", f"--to={to}"])


def find(run: str) -> tuple[Path, dict[str, Any]]:
    """The `.keras` file of a run directory, or the file itself, and what the run's summary says.

    Raises:
        NoModel: There is none.
    """
    path = Path(run)
    if path.is_dir():
        file = path / "model.keras"
        if not file.is_file():
            raise NoModel(f"{path} must be a run that has ended well; received one without model.keras")
        try:
            facts = json.loads((path / "summary.json").read_text())
        except (OSError, ValueError):
            facts = {}
        return file, facts if isinstance(facts, dict) else {}
    if not path.is_file():
        raise NoModel(f"RUN must be a run directory or a .keras file; there is nothing at {path.absolute()}")
    return path, {}


def become(module: str, flags: list[str]) -> NoReturn:
    """Turns this process into `python -m module`."""
    environment = {**os.environ, "PYTHONPATH": python_path(os.environ.get("PYTHONPATH", ""))}
    os.execve(sys.executable, [sys.executable, "-P", "-m", module, *flags], environment)
