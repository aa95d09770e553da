"""What a run directory records of a script, so that `downpour replay` can run it again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from downpour.deploy.launch.environment import hash_seed
from downpour.deploy.scripts.script_settings import RunSettings

RECORD = "script.json"  # in the run directory


class ScriptRecord(BaseModel):
    """A script as it was started.

    Attributes:
        script: The path of the script, or `-m` and the name of a module, and the arguments.
        folder: The folder in which it ran.
        hash_seed: The value of `PYTHONHASHSEED`.
        sha256: SHA-256 (hex) of the file of the script; empty for a module.
        threads: The number of TensorFlow's threads within an operation.
        gpus_per_worker: The setting `--gpus-per-worker`.
    """

    script: list[str]
    folder: str
    hash_seed: str
    sha256: str = ""
    threads: int = 1
    gpus_per_worker: float | None = None


def write_script_record(run_dir: Path, script: Sequence[str], settings: RunSettings) -> None:
    """Write the record of a script that is about to be started in the current folder.

    Raises:
        OSError: The run directory cannot be written.
    """
    record = ScriptRecord(
        script=list(script), folder=os.getcwd(), hash_seed=hash_seed(os.environ, settings.seed),
        sha256=sha256_of(script), threads=settings.threads, gpus_per_worker=settings.gpus_per_worker,
    )  # fmt: skip
    (run_dir / RECORD).write_text(json.dumps(record.model_dump(), indent=2) + "\n")


def sha256_of(script: Sequence[str]) -> str:
    """Return the SHA-256 (hex) of the file of a script; empty for a module, and if there is no such file."""
    try:
        return "" if script[0] == "-m" else hashlib.sha256(Path(script[0]).read_bytes()).hexdigest()
    except OSError:
        return ""
