"""What every launcher must bring about, whoever starts the processes.

The job trains to at least 0.95 in three epochs, survives a worker that is killed, ends by itself with exit status 0,
and leaves nothing behind: no process, no temporary file. `deploy/compose_test.py` asks the same of containers.
"""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from tests.support.cluster import Process, wait_until

ACCURACY, EPOCHS, SAMPLES, LIMIT_S = 0.95, 3, 57_000, 240.0
JOB = (f"--epochs={EPOCHS}", "--learning-rate=0.5")


@dataclass
class Launched:
    """A job that was started.

    Attributes:
        processes: To be waited for; all must end with exit status 0 but the one that is killed.
        address: Tells where the coordinator is, or raises OSError or StopIteration while nobody knows.
        victim: The process to kill, or None for the newest worker, which its launcher starts again.
    """

    processes: Sequence[Process]
    address: Callable[[], str]
    victim: Process | None = None


class Launcher:
    """A way to start a job: `start` is its own, the contract is the same for all."""

    def start(self, folder: Path, environ: dict[str, str]) -> Launched:
        """Starts a job of two workers with the settings of `JOB`, its run in `folder/run` or `folder/runs`."""
        raise NotImplementedError

    def check(self, folder: Path) -> Path:
        """Runs a job and checks all of the contract; returns the run directory."""
        mark, temporary = f"mark-{uuid.uuid4()}", folder / "tmp"
        temporary.mkdir()
        launched = self.start(folder, {"CONTRACT_MARK": mark, "TMPDIR": str(temporary), "DOWNPOUR_XLA": "off"})
        try:
            progress = wait_until(lambda: _training(launched), "two workers train", LIMIT_S)
            newest = max(progress.workers, key=lambda worker: worker.worker)
            os.kill(launched.victim.child.pid if launched.victim else newest.pid, signal.SIGKILL)
            for process in launched.processes:
                code = process.wait(LIMIT_S)
                assert code == (-signal.SIGKILL if process is launched.victim else 0), process.errors
            wait_until(lambda: not _alive(mark), "no process is left")
        finally:
            for process in launched.processes:
                process.kill()
            for pid in _alive(mark):
                os.kill(pid, signal.SIGKILL)
        assert list(temporary.iterdir()) == []
        run = folder / "run" if (folder / "run").is_dir() else folder / "runs" / "latest"
        summary = json.loads((run / "summary.json").read_text())
        assert summary["status"] == "ended" and summary["samples"] == EPOCHS * SAMPLES
        assert summary["test_accuracy"] >= ACCURACY, summary["history"]
        assert (run / "model.keras").stat().st_size > 0
        return run


def _training(launched: Launched) -> pb.Progress | None:
    for process in launched.processes:
        assert process.child.poll() is None, process.errors
    try:
        control = CoordinatorClient(launched.address(), 5.0)
    except (OSError, StopIteration):
        return None
    try:
        progress: pb.Progress = control._call(control._stub.Status, pb.StatusRequest())
    except DownpourError:
        return None
    finally:
        control.close()
    busy = [worker for worker in progress.workers if worker.updates]
    return progress if progress.phase == "training" and len(busy) >= 2 else None


def _alive(mark: str) -> list[int]:
    """Processes that carry a mark in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended, or is not ours
    return found


def announced(log: Path) -> dict[str, Any]:
    """The announcement in the log of a server that a launcher started."""
    said = json.loads(next(line for line in log.read_text().splitlines() if line.startswith("{")))
    assert isinstance(said, dict)
    return said
