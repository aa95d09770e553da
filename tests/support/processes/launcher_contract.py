"""The contract of every launcher in the registry.

The job trains to at least 0.95 in three epochs, survives a worker that is killed, and a server if the
launcher restarts servers, ends by itself with exit status 0,
and leaves nothing behind: no process, no temporary file. `deploy/compose_test.py` checks the same with containers.
"""

from __future__ import annotations

import json
import os
import signal
import uuid
from pathlib import Path

from downpour.deploy.launch.started_job import LauncherEntry, LaunchRequest, StartedJob
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from tests.support.cluster import wait_until
from tests.support.processes.launched import alive

ACCURACY, EPOCHS, SAMPLES, LIMIT_S = 0.95, 3, 57_000, 240.0
JOB = (f"--epochs={EPOCHS}", "--learning-rate=0.5")


def check_contract(launcher: LauncherEntry, folder: Path) -> Path:
    """Run a job of two workers, kill one of them, check the contract, and return the run directory."""
    mark, temporary = f"mark-{uuid.uuid4()}", folder / "tmp"
    temporary.mkdir()
    environment = {"CONTRACT_MARK": mark, "TMPDIR": str(temporary), "DOWNPOUR_XLA": "off"}
    with launcher.start(LaunchRequest(folder, JOB, environment=environment)) as job:
        progress = wait_until(lambda: training(folder, job), "two workers train", LIMIT_S)
        newest = max((worker for worker in progress.workers if worker.updates), key=lambda worker: worker.worker)
        os.kill(newest.pid, signal.SIGKILL)
        killed = [name for name, process in job.processes.items() if process.pid == newest.pid]
        assert bool(killed) != launcher.restarts_workers
        if launcher.restarts_servers:
            wait_until(lambda: checkpointed(job), "there is a checkpoint", LIMIT_S)
            os.kill(server_pid(job), signal.SIGKILL)
        for name, process in job.processes.items():
            code = process.wait(LIMIT_S)
            assert code == (-signal.SIGKILL if name in killed else 0), logs(folder)
        wait_until(lambda: not alive(mark), "no process is left")
        summary, run_dir = job.summary(), job.run_dir
    assert list(temporary.iterdir()) == []
    assert summary["status"] == "ended" and summary["samples"] == EPOCHS * SAMPLES
    assert summary["test_accuracy"] >= ACCURACY, summary["history"]
    assert not launcher.restarts_servers or summary["generation"] >= 2
    assert run_dir is not None and (run_dir / "model.keras").stat().st_size > 0
    return run_dir


def training(folder: Path, job: StartedJob) -> pb.Progress | None:
    """Return the progress of a job once two workers train, else None."""
    for name, process in job.processes.items():
        assert process.poll() is None, f"{name} has ended: {logs(folder)}"
    try:
        control = CoordinatorClient(job.address(), 5.0)
    except LookupError:
        return None
    try:
        progress: pb.Progress = control._call(control._stub.Status, pb.StatusRequest())
    except DownpourError:
        return None
    finally:
        control.close()
    busy = [worker for worker in progress.workers if worker.updates]
    return progress if progress.phase == "training" and len(busy) >= 2 else None


def checkpointed(job: StartedJob) -> bool:
    """Return whether the run has a checkpoint."""
    return job.run_dir is not None and any((job.run_dir / "checkpoints").glob("[!.]*"))


def server_pid(job: StartedJob) -> int:
    """Return the id of the process of server 0, from its last announcement."""
    assert job.run_dir is not None
    return last_server_pid(job.run_dir)


def last_server_pid(run_dir: Path) -> int:
    """Return the id of the process of server 0 of a run, from its last announcement."""
    lines = (run_dir / "logs" / "ps-0.log").read_text().splitlines()
    return int([json.loads(line) for line in lines if line.startswith('{"event": "listening"')][-1]["pid"])


def logs(folder: Path) -> str:
    """Return the end of every log in a folder."""
    return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in folder.glob("*.log"))
