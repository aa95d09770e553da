"""The jobs that `downpour bench chaos` disturbs: a built-in training, and a script that calls Keras's `fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from downpour.bench.chaos.checks import Findings, faults_in_run
from downpour.bench.chaos.script_checks import faults_of_script
from downpour.bench.chaos.settings import ChaosSettings
from downpour.bench.chaos.signed_gradients import BATCH, RATE, TRAIN_EPOCHS
from downpour.bench.module_process import module_command

SESSION_S = 2
RESTARTS = 100_000
SCRIPT = Path(__file__).with_name("fit_script.py")


class ChaosJob(Protocol):
    """The interface of a job whose processes are killed while it trains.

    Attributes:
        worker_module: The module that a worker runs.
        start_s: The time from the start of the launcher to the first push, at most.
        end_s: The time until a push is answered after a disturbance, and until the job ends, at most.
        any_moment_share: The share of the kills that wait for no push in flight.
    """

    worker_module: str
    start_s: float
    end_s: float
    any_moment_share: float

    @property
    def run(self) -> Path:
        """Return the run directory, which exists when the job has ended."""

    def command(self, resume: bool) -> list[str]:
        """Return the command of the launcher."""

    def findings(self) -> Findings:
        """Check the run of a job that has ended."""


def job_of(settings: ChaosSettings, folder: Path) -> ChaosJob:
    """Return the job of a round, whose files are in `folder`."""
    return ScriptJob(settings, folder) if settings.script else BuiltInJob(settings, folder)


def _flags(settings: ChaosSettings) -> list[str]:
    return [
        f"--workers={settings.workers}", f"--shards={settings.shards}", f"--session-s={SESSION_S}",
        "--checkpoint-every=0.3s", f"--worker-restarts={RESTARTS}", f"--server-restarts={RESTARTS}",
        f"--mode={settings.mode}", f"--codec={settings.codec}", f"--transport={settings.transport}",
    ]  # fmt: skip


class BuiltInJob:
    """`downpour train` with the workers of worker.py, which need no TensorFlow; see `ChaosJob`."""

    worker_module = "downpour.bench.chaos.worker"
    start_s, end_s, any_moment_share = 90.0, 120.0, 0.0

    def __init__(self, settings: ChaosSettings, folder: Path) -> None:
        """Build a job that is not started; see `job_of`."""
        self._settings, self.run = settings, folder / "run"

    def command(self, resume: bool) -> list[str]:
        """Return the command of the launcher."""
        own = [f"--epochs={TRAIN_EPOCHS}", f"--batch-size={BATCH}", f"--learning-rate={RATE}", "--lease-batches=8"]
        again = ["--resume"] if resume else []
        return module_command(
            "downpour.bench.chaos.launch", str(self.run), *_flags(self._settings), *own, *again
        )  # fmt: skip

    def findings(self) -> Findings:
        """Check the run of a job that has ended."""
        return faults_in_run(self.run, self._settings.shards, TRAIN_EPOCHS, BATCH, self._settings.mode)


class ScriptJob:
    """`downpour run` with fit_script.py; see `ChaosJob`."""

    worker_module = "downpour.worker.fit"
    start_s, end_s, any_moment_share = 240.0, 240.0, 0.3

    def __init__(self, settings: ChaosSettings, folder: Path) -> None:
        """Build a job that is not started; see `job_of`."""
        self._settings, self._runs, self._out = settings, folder / "runs", folder / "out"
        self._out.mkdir()

    @property
    def run(self) -> Path:
        """Return the run directory, which exists when the job has ended."""
        return next(path for path in self._runs.iterdir() if not path.is_symlink())

    def command(self, resume: bool) -> list[str]:
        """Return the command of the launcher."""
        again = [f"--resume={self.run}"] if resume else []
        flags = [*_flags(self._settings), f"--runs-dir={self._runs}", *again]
        return module_command("downpour.deploy.cli", "run", *flags, str(SCRIPT), str(self._out))

    def findings(self) -> Findings:
        """Check the run of a job that has ended, and the files of its script."""
        return faults_of_script(self.run, self._out, self._settings.shards)
