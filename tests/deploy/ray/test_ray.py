"""Jobs on a real Ray cluster of three nodes on this machine; `make ray-test` runs these tests alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.deploy.launchers import LAUNCHERS
from tests.support.cluster import wait_until
from tests.support.paths import ROOT
from tests.support.processes.launcher_contract import check_contract, last_server_pid
from tests.support.scripts import check_counted, counted_script

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

OWN = [sys.executable, "-P", "-m", "downpour.deploy.cli", "ray"]
NODE_CPUS = 2
SCRIPT = """
import sys

import keras
import numpy as np

from downpour import DistributedOptimizer

x = np.random.default_rng(1).normal(size=(512, 4)).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(float(sys.argv[1]))), loss="mse")
history = model.fit(x, x.sum(axis=1, keepdims=True), epochs=1, batch_size=32, verbose=0)
print("LOSS", history.history["loss"][-1], flush=True)
"""


@contextmanager
def ray_nodes(monkeypatch: pytest.MonkeyPatch, **head: Any) -> Iterator[Any]:
    """Run a cluster whose head has no resources of its own for processes, and three nodes."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    monkeypatch.setenv("RAY_enable_infeasible_task_early_exit", "false")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **head})
    for _ in range(3):
        cluster.add_node(num_cpus=NODE_CPUS)
    cluster.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    try:
        yield cluster
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with ray_nodes(monkeypatch) as cluster:
        yield cluster


@contextmanager
def driver(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "driver.log").open("wb") as log:
        process = subprocess.Popen([*OWN, f"--runs-dir={folder}/runs", *arguments], stdout=log, stderr=log, cwd=folder)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def node_of(nodes: Any, pid: int) -> Any:
    """Return the node whose raylet is an ancestor of a process."""
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes.list_all_nodes() if not node.head}
    while pid > 1:
        if pid in raylets:
            return raylets[pid]
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    raise AssertionError("the process is on no node")


def write_script(folder: Path) -> Path:
    """Write a small script, whose argument is its learning rate, and which prints its last loss."""
    path = folder / "train.py"
    path.write_text(SCRIPT)
    return path


def run_in(folder: Path) -> Callable[[], Path | None]:
    return lambda: next((path for path in (folder / "runs").glob("2*")), None)


def test_the_contract_holds(nodes: Any, tmp_path: Path) -> None:
    check_contract(LAUNCHERS["ray"], tmp_path)


def test_a_lost_node_takes_the_server_along_which_resumes_on_another(nodes: Any, tmp_path: Path) -> None:
    """The processes fill all nodes, so that a worker beyond the smallest number must end for the server."""
    flags = ("--workers=2..5", "--epochs=20", "--learning-rate=0.5", "--xla=off", "--placement=SPREAD")
    with driver(tmp_path, *flags) as process:
        run = wait_until(run_in(tmp_path), "a run has begun", 120)
        wait_until(lambda: any((run / "checkpoints").glob("[!.]*")), "there is a checkpoint", 200)
        begun = run / "trace.npy"
        wait_until(lambda: len(set(np.load(begun, mmap_mode="r")["worker"])) >= 5, "5 workers train", 200)
        lost = node_of(nodes, last_server_pid(run))
        before = last_server_pid(run)
        nodes.remove_node(lost, allow_graceful=False)
        wait_until(lambda: last_server_pid(run) != before, "the server is on another node", 120)
        nodes.add_node(num_cpus=NODE_CPUS)
        log = tmp_path / "driver.log"
        assert process.wait(300) == 0, log.read_text()
    summary = json.loads((run / "summary.json").read_text())
    text = log.read_text()
    assert summary["status"] == "ended" and summary["generation"] >= 2, text
    assert summary["test_accuracy"] >= 0.95, text
    assert "ps-0 was lost with its node" in text and "ps-0 is at" in text and "so that ps-0 has a node" in text


def test_a_new_node_gets_a_worker(nodes: Any, tmp_path: Path) -> None:
    for node in [node for node in nodes.list_all_nodes() if not node.head][1:]:
        nodes.remove_node(node)
    flags = ("--workers=1..3", "--epochs=40", "--learning-rate=0.1", "--xla=off", "--model=sigmoid100")
    with driver(tmp_path, *flags) as process:
        run = wait_until(run_in(tmp_path), "a run has begun", 120)
        wait_until(lambda: (run / "trace.npy").exists(), "the job trains", 200)
        nodes.add_node(num_cpus=NODE_CPUS)
        wait_until(lambda: len(set(np.load(run / "trace.npy", mmap_mode="r")["worker"])) == 3, "3 workers train", 200)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, (tmp_path / "driver.log").read_text()


def test_fit_from_python_and_in_a_trial_of_ray_tune(nodes: Any, tmp_path: Path) -> None:
    import keras
    import ray

    import downpour.ray

    x = np.random.default_rng(1).normal(size=(512, 4)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    before = model.evaluate(x, y, verbose=0)
    with downpour.ray.Cluster(workers=(1, 2), shards=2, runs_dir=str(tmp_path / "runs"), grow_s=1.0) as cluster:
        history = cluster.fit(model, x, y, epochs=2, batch_size=32)
        assert model.evaluate(x, y, verbose=0) < before / 2 and len(history.history["loss"]) == 2

    runs = str(tmp_path / "tune")

    @ray.remote(num_cpus=1)
    def trial(rate: float) -> float:  # as Tune runs a function: in an actor, in a thread that is not the main one
        def body() -> float:
            network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
            network.compile(keras.optimizers.SGD(rate), loss="mse")
            done = downpour.ray.Cluster(workers=1, runs_dir=runs).fit(network, x, y, epochs=1, batch_size=32)
            return float(done.history["loss"][-1])

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(body).result()

    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    found = ray.get([trial.remote(rate) for rate in (0.001, 0.05)], timeout=300)
    assert found[1] < found[0]


@pytest.mark.parametrize("way", ["python", "command"])
def test_two_trials_of_ray_tune_train_a_job_each(way: str, nodes: Any, tmp_path: Path) -> None:
    """A trial runs in a placement group of its own, and its servers and workers in others."""
    import ray
    from ray import tune

    x = np.random.default_rng(1).normal(size=(512, 4)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    runs, script = str(tmp_path / "runs"), write_script(tmp_path)

    def by_python(rate: float) -> float:
        import keras

        import downpour.ray

        network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        network.compile(keras.optimizers.SGD(rate), loss="mse")
        done = downpour.ray.Cluster(workers=1, runs_dir=runs).fit(network, x, y, epochs=1, batch_size=32)
        return float(done.history["loss"][-1])

    def by_command(rate: float) -> float:
        command = [*OWN, "--workers=1", f"--runs-dir={runs}", str(script), str(rate)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return float(done.stdout.rpartition("LOSS ")[2].split()[0])

    def trial(config: dict[str, float]) -> None:
        tune.report({"loss": (by_python if way == "python" else by_command)(config["rate"])})

    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    kept = tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0)
    rates = {"rate": tune.grid_search([0.001, 0.05])}
    found = tune.Tuner(tune.with_resources(trial, {"cpu": 1}), param_space=rates, run_config=kept).fit()
    assert not found.errors, found.errors
    losses = {result.config["rate"]: result.metrics["loss"] for result in found}
    assert len(losses) == 2 and losses[0.05] < losses[0.001]
    assert len(list((tmp_path / "runs").glob("2*/summary.json"))) == 2


def test_ray_job_submit_runs_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    work = tmp_path / "work"
    work.mkdir()
    write_script(work)
    with ray_nodes(monkeypatch, include_dashboard=True, dashboard_port=port):
        submit = [str(Path(sys.executable).with_name("ray")), "job", "submit", f"--address=http://127.0.0.1:{port}"]
        command = [*OWN, "--workers=2", f"--runs-dir={tmp_path}/runs", "train.py", "0.05"]
        done = subprocess.run(
            [*submit, f"--working-dir={work}", "--", *command], capture_output=True, text=True, timeout=400
        )
    assert done.returncode == 0 and "LOSS" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    (run,) = (tmp_path / "runs").glob("2*")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "ended" and summary["workers"] == 2


def test_a_script_continues_when_the_server_is_killed(nodes: Any, tmp_path: Path) -> None:
    flags = ("--workers=2", "--checkpoint-every=0.2s")
    with driver(tmp_path, *flags, *counted_script(tmp_path)) as process:
        run = wait_until(run_in(tmp_path), "a run has begun", 120)
        lead = run / "logs" / "worker-0.log"
        wait_until(lambda: lead.exists() and "BATCH 40" in lead.read_text(), "the script trains", 200)
        os.kill(last_server_pid(run), signal.SIGKILL)
        log = tmp_path / "driver.log"
        assert process.wait(300) == 0, log.read_text()
    check_counted(tmp_path)
    assert json.loads((run / "summary.json").read_text())["generation"] >= 2, log.read_text()


def test_a_job_without_room_is_refused(nodes: Any, tmp_path: Path) -> None:
    started = time.monotonic()
    command = [*OWN, "--workers=40", "--place-timeout-s=2", "--epochs=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "must have room for 41 processes" in done.stderr, done.stderr
    assert time.monotonic() - started < 60
