"""Users' scripts, run with `downpour run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tests.support.paths import ROOT

SCRIPTS = ROOT / "tests" / "scripts"
MNIST = ROOT / "worker" / "data" / "mnist.npz"
LIMIT_S = 800.0
COUNTED_EPOCHS, COUNTED_SAMPLES = 3, 800


def environment() -> dict[str, str]:
    """Return an environment without settings of downpour, in which Python finds the package from any folder."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DOWNPOUR_")}
    return {**clean, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


def command(folder: Path, script: str, *arguments: str, workers: int, shards: int = 1, **flags: Any) -> list[str]:
    """Return the command that runs a script of `tests/scripts` as a job with its runs in `folder`."""
    typed = {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
    given = [name if value is True else f"{name}={value}" for name, value in typed.items()]
    mine = [f"--workers={workers}", f"--shards={shards}", f"--runs-dir={folder / 'runs'}", *given]
    return [sys.executable, "-m", "downpour.deploy.cli", "run", *mine, str(SCRIPTS / script), *arguments]


def run(folder: Path, script: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, with the arguments of `command`; it must succeed."""
    done = subprocess.run(
        command(folder, script, *arguments, **options), env=environment(), cwd=folder, capture_output=True, text=True,
        timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def counted_script(folder: Path) -> list[str]:
    """Return a script whose weights count the uses of each sample, and its arguments; it takes some seconds."""
    return [str(SCRIPTS / "counted_fit.py"), str(folder), str(COUNTED_EPOCHS), str(COUNTED_SAMPLES), "0.02"]


def check_counted(folder: Path) -> None:
    """Check that the script of `counted_script`, with two workers, used each sample once in each epoch."""
    for rank in (0, 1):
        report = json.loads((folder / f"report-{rank}.json").read_text())
        assert report["begun"] == report["epochs"] == list(range(COUNTED_EPOCHS))
        assert report["uses"] == [COUNTED_EPOCHS] * COUNTED_SAMPLES


def server_of(launcher: subprocess.Popen[str], shard: int) -> psutil.Process:
    """Return the process of a shard."""
    for process in psutil.Process(launcher.pid).children():
        line = process.cmdline()
        if "downpour.ps" in line and (f"--shard={shard}" in line or (not shard and "--script" in line)):
            return process
    raise AssertionError(f"shard {shard} does not run")
