"""Jobs on a real Slurm cluster of three nodes; `make slurm-test` runs these tests alone."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from downpour.deploy.launchers import LAUNCHERS
from tests.support.cluster import wait_until
from tests.support.paths import ROOT
from tests.support.processes.launched import alive
from tests.support.processes.launcher_contract import check_contract, last_server_pid
from tests.support.processes.slurm_cluster import slurm_cluster
from tests.support.scripts import MNIST, check_counted, counted_script

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

OWN = [sys.executable, "-P", "-m", "downpour.deploy.cli", "slurm"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as variables:
        yield {**variables, "PYTHONPATH": str(ROOT)}


@pytest.fixture(autouse=True)
def slurm_variables(cluster: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)


def batch(folder: Path, command: list[str], *flags: str) -> str:
    """Submit a job of one step and return its number."""
    done = subprocess.run(
        ["sbatch", "--parsable", f"--chdir={folder}", f"--output={folder}/slurm.log", "--open-mode=append", *flags,
         "--wrap", f"exec srun {shlex.join(command)}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def state(job: str) -> str:
    """Return the state of a job, such as RUNNING."""
    done = subprocess.run(["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"], capture_output=True)
    return done.stdout.decode().strip()


def test_the_contract_holds(tmp_path: Path) -> None:
    check_contract(LAUNCHERS["slurm"], tmp_path)


def test_tasks_on_three_nodes_train_a_script_with_tls(tmp_path: Path) -> None:
    script = ROOT / "tests" / "scripts" / "mnist_dense.py"
    done = subprocess.run(
        ["sbatch", "--wait", "--nodes=3", "--ntasks=5", f"--chdir={tmp_path}", f"--output={tmp_path}/slurm.log",
         "--wrap", f"srun {shlex.join([*OWN, '--shards=2', str(script), '2000', '2', str(MNIST)])}"],
        capture_output=True, timeout=400,
    )  # fmt: skip
    log = (tmp_path / "slurm.log").read_text()
    assert done.returncode == 0, log
    (run,) = (tmp_path / "runs").glob("slurm-*")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "ended" and summary["workers"] == 3
    assert (run / "access").stat().st_mode & 0o77 == 0, "keys are the user's own"


def test_a_signal_saves_the_job_and_the_requeued_job_resumes(tmp_path: Path) -> None:
    mark = {"MARK": f"mark-{tmp_path.name}-{os.getpid()}"}
    command = [*OWN, "--requeue", "--epochs=12", "--learning-rate=0.5", "--seed=3"]
    os.environ.update(mark)
    try:
        job = batch(tmp_path, command, "--ntasks=3", "--requeue")
    finally:
        del os.environ["MARK"]
    run = tmp_path / "runs" / f"slurm-{job}.0"
    wait_until(lambda: any((run / "checkpoints").glob("[!.]*")), "there is a checkpoint", 200)
    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    wait_until(lambda: (run / "places" / "1.json").exists(), "the job has begun again", 200)
    wait_until(lambda: state(job) in ("COMPLETED", "FAILED", "CANCELLED"), "the job has ended", 300)
    log = (tmp_path / "slurm.log").read_text()
    assert state(job) == "COMPLETED", log
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "ended" and summary["epochs"] == 12 and summary["generation"] >= 2
    assert summary["test_accuracy"] >= 0.95, log
    wait_until(lambda: not alive(mark["MARK"]), "no process is left")


def test_a_script_continues_when_the_server_is_killed(tmp_path: Path) -> None:
    command = [*OWN, "--checkpoint-every=0.2s", *counted_script(tmp_path)]
    job = batch(tmp_path, command, "--ntasks=3")
    run = tmp_path / "runs" / f"slurm-{job}.0"
    log = tmp_path / "slurm.log"
    wait_until(lambda: log.exists() and "BATCH 40" in log.read_text(), "the script trains", 200)
    os.kill(last_server_pid(run), signal.SIGKILL)
    wait_until(lambda: state(job) in ("COMPLETED", "FAILED", "CANCELLED"), "the job has ended", 300)
    assert state(job) == "COMPLETED", log.read_text()
    check_counted(tmp_path)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "ended" and summary["generation"] >= 2


def test_a_script_that_fails_ends_all_tasks(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import downpour\nassert downpour.rank() != 1, 'this worker cannot train'\n" + SCRIPT)
    done = subprocess.run(
        ["sbatch", "--wait", "--ntasks=3", f"--chdir={tmp_path}", f"--output={tmp_path}/slurm.log",
         "--wrap", f"srun {shlex.join([*OWN, str(script)])}"],
        capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0
    assert "this worker cannot train" in (tmp_path / "slurm.log").read_text()


def test_outside_of_a_step_the_command_says_how_it_is_started(tmp_path: Path) -> None:
    done = subprocess.run(OWN, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and "srun downpour slurm" in done.stderr


SCRIPT = """
import keras
import numpy as np

from downpour import DistributedOptimizer

x, y = np.random.default_rng(1).normal(size=(256, 4)), np.zeros(256)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.01)), loss="mse")
model.fit(x, y, epochs=2, verbose=0)
"""
