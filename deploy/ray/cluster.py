"""Trains on a Ray cluster from Python: `downpour.ray.Cluster(workers=(2, 8), shards=2).fit(model, x, y)`.

The methods `start`, `run` and `shutdown` are those of Horovod's RayExecutor.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from downpour.deploy.launch.run_dir import make_run_dir, read_summary
from downpour.deploy.ray.job import RayJob, connect, disconnect
from downpour.deploy.ray.settings import RayRunSettings, RayTrainSettings
from downpour.deploy.scripts.local_cluster import NAME, TASK_SCRIPT, FitFailed, LocalCluster
from downpour.deploy.scripts.notebook_screen import NotebookScreen
from downpour.deploy.scripts.script_checks import check_script, name_of
from downpour.deploy.scripts.script_launcher import LEADER
from downpour.deploy.scripts.session_callbacks import SessionCallbacks
from downpour.deploy.view.terminal import open_screen


class Cluster(LocalCluster):
    """A cluster of servers and workers on the nodes of a Ray cluster.

        with downpour.ray.Cluster(workers=(2, 8), shards=2) as cluster:
            history = cluster.fit(model, x, y, epochs=5)

    It may be used in a notebook, in a program that `ray job submit` has started, and in a trial of Ray Tune. There,
    the cluster must have resources beyond those of the trial itself.
    """

    kind = RayRunSettings
    runs_callbacks = False

    def __init__(
        self, workers: int | tuple[int, int] = 2, shards: int = 1, modules: Sequence[str] = (), **settings: Any
    ) -> None:
        """Check the settings of a cluster; see `LocalCluster`.

        Args:
            workers: The number of workers, or the smallest and the largest number.
            shards: The number of processes that hold the weights.
            modules: Names of the modules that the workers import before they load the model.
            settings: Other settings of `downpour ray`, such as `address="auto"` or `runs_dir="/shared/runs"`.
        """
        least, most = workers if isinstance(workers, tuple) else (workers, workers)
        if not 1 <= least <= most:
            raise ValueError(f"workers must be a number, or the smallest and the largest number; received {workers}.")
        super().__init__(least, shards, modules, max_workers=most, **settings)
        self._ray = RayRunSettings(workers=least, shards=shards, max_workers=most, **settings)
        self._connected = False

    def start(self) -> None:
        """Connect this process to the Ray cluster. The methods that train do so if it has not been called."""
        self._connected = connect(self._ray.address) or self._connected

    def run(self, script: Sequence[str]) -> dict[str, Any]:
        """Train a Keras script, and return the summary of the job.

        Args:
            script: The path of the script, which every node must have, and its arguments.

        Raises:
            BadScript: The script cannot be run.
            FitFailed: The job ended with an error.
        """
        check_script(list(script))
        run_dir = self._run_dir(name_of(script))
        self._run(RayJob(self._ray, script), run_dir, NotebookScreen(run_dir / "logs" / f"{LEADER}.log"))
        return read_summary(run_dir) or {}

    def train(self, **job: Any) -> dict[str, Any]:
        """Train a built-in model, and return the summary of the job.

        Args:
            job: Settings of `downpour train`, such as `model="resnet20"` or `epochs=5`.

        Raises:
            FitFailed: The job ended with an error.
        """
        given = {name: getattr(self._ray, name) for name in self._ray.model_fields_set}
        settings = RayTrainSettings(**{**given, **job})
        run_dir = self._run_dir(settings.model)
        self._run(RayJob(settings), run_dir, open_screen(False))
        return read_summary(run_dir) or {}

    def shutdown(self) -> None:
        """Disconnect this process from the Ray cluster, if `start` has connected it."""
        if self._connected:
            disconnect()
            self._connected = False

    def __enter__(self) -> Cluster:
        """Connect to the cluster."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Disconnect from the cluster."""
        self.shutdown()

    # ------------------------------------------------------------------------------------------

    def _run_dir(self, name: str) -> Path:
        return make_run_dir(Path(self._ray.runs_dir).absolute(), name, datetime.now(UTC))

    def _run(self, job: RayJob, run_dir: Path, screen: Any) -> None:
        self.start()
        code, launcher = job.run(run_dir, screen)
        if code:
            why = launcher.last_error()
            raise FitFailed(f"the job must end with status 0; it ended with {code}. Logs: {run_dir}/logs\n{why}")

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A folder for the model and the data, which all nodes see."""
        runs = Path(self._ray.runs_dir).absolute()
        runs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fit-", dir=runs) as folder:
            yield Path(folder)

    def _launch(self, folder: Path, session: SessionCallbacks) -> Path:
        run_dir = self._run_dir(NAME)
        script = [TASK_SCRIPT, os.fspath(folder)]
        self._run(RayJob(self._ray, script), run_dir, NotebookScreen(run_dir / "logs" / f"{LEADER}.log"))
        return run_dir
