"""Workers are killed, suspended, added late and disconnected; the others train on, and each sample is used once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from downpour.bench.chaos.checks import faults_in_run
from downpour.bench.chaos.history import faults_of
from downpour.bench.chaos.shared_flags import FILE_VARIABLE, NO_PAUSE, SHAPE_VARIABLE, SIZE_BYTES, SharedFlags
from downpour.bench.chaos.signed_gradients import RATE
from downpour.deploy.certs import CertsSettings, certs
from downpour.ps.trace.format import DTYPE, applied
from tests.support.cluster import Cluster, Process, running, wait_until
from tests.support.processes.restarts import checkpointed, start_again
from tests.support.toys.quadrants import USED, write_quadrants

pytestmark = pytest.mark.slow

ENDLESS = 100_000  # epochs of a job that the test ends: however fast the machine, it is not over before


# ------------------------------------------------------------------ real training


def worker_of(launcher: Process, number: int) -> psutil.Process:
    """Wait for the process of a worker and return it."""

    def find() -> psutil.Process | None:
        children = psutil.Process(launcher.child.pid).children()
        return next((each for each in children if f"--worker={number}" in each.cmdline()), None)

    found = wait_until(find, f"worker {number} has been started")
    assert isinstance(found, psutil.Process)
    return found


def trace_so_far(run: Path) -> np.ndarray:
    """Return the trace of shard 0 while it is being written; it is empty before its header is complete."""
    path = run / "trace.npy"
    begun = path.exists() and path.stat().st_size > 0
    return np.load(path) if begun else np.zeros(0, DTYPE)


def pushed(run: Path, worker: int, incarnation: int = 1) -> int:
    """Return the number of pushes of one incarnation of a worker that were applied so far."""
    trace = applied(trace_so_far(run))
    return int(((trace["worker"] == worker) & (trace["incarnation"] == incarnation)).sum())


def uses(trace: np.ndarray, epochs: int, samples: int) -> np.ndarray:
    """Return how often each sample of each epoch was applied, `int[epochs, samples]`."""
    used = np.zeros((epochs, samples), int)
    for record in applied(trace):
        used[record["epoch"], record["start"] : record["stop"]] += 1
    return used


@contextmanager
def training(tmp_path: Path, *flags: str) -> Iterator[tuple[Process, Path]]:
    """Run `downpour train` and give its process and run directory; at the end of the block it must succeed."""
    common = ["--workers=2", "--xla=off", "--batch-size=16", "--drain-timeout-s=60", f"--runs-dir={tmp_path / 'runs'}"]
    launcher = Process(tmp_path / "launcher.log", "-m", "downpour.deploy.cli", "train", "--verbose", *common, *flags)
    run = tmp_path / "runs" / "latest"
    try:
        yield launcher, run
        assert launcher.wait(200.0) == 0, launcher.errors
    except BaseException:
        print(launcher.errors, *(f"--- {log}\n{log.read_text()}" for log in (run / "logs").glob("*.log")), sep="\n")
        raise
    finally:
        launcher.kill()


def used_in_epoch(run: Path, epoch: int) -> int:
    """Return the number of samples of an epoch that were applied so far."""
    trace = applied(trace_so_far(run))
    trace = trace[trace["epoch"] == epoch]
    return int((trace["stop"] - trace["start"]).sum())


@pytest.mark.parametrize("mode", ["async", "bsp", "ssp:2"])
def test_a_worker_that_is_suspended_beyond_its_session_joins_again(tmp_path: Path, mode: str) -> None:
    """The job trains on until the worker is back and the epoch in which it was stopped is over; then it is drained."""
    write_quadrants(tmp_path / "quadrants.npz")
    flags = [f"--dataset={tmp_path / 'quadrants.npz'}", f"--epochs={ENDLESS}", f"--mode={mode}", "--session-s=2"]
    with training(tmp_path, *flags) as (launcher, run):
        wait_until(lambda: pushed(run, 1) > 20 and pushed(run, 0) > 20, "both workers push", 120.0)
        victim = worker_of(launcher, 1)
        victim.suspend()
        try:
            server = run / "logs" / "ps-0.log"
            wait_until(lambda: "worker 1 has sent no heartbeat" in server.read_text(), "its session has ended")
            before = pushed(run, 0)
            wait_until(lambda: pushed(run, 0) > before + 20, "the other one does not wait for it")
        finally:
            victim.resume()
        wait_until(lambda: pushed(run, 1, incarnation=2) > 0, "it has joined again, and pushes")
        assert "session lost, registering again" in (run / "logs" / "worker-1.log").read_text()
        assert victim.is_running()
        trace = trace_so_far(run)
        stopped_in = int(trace["epoch"][(trace["worker"] == 1) & (trace["incarnation"] == 1)].max())
        last = stopped_in + 1  # its last lease may have been one of the next epoch
        wait_until(lambda: all(used_in_epoch(run, epoch) >= USED for epoch in range(last + 1)), "these are used up")
        launcher.child.send_signal(signal.SIGINT)
    trace = np.load(run / "trace.npy")
    used = uses(trace, int(trace["epoch"].max()) + 1, USED)
    assert (used[: last + 1] == 1).all() and used.max() == 1
    assert used.sum() == json.loads((run / "summary.json").read_text())["samples"]
    assert faults_of(trace) == []


@pytest.mark.parametrize("mode", ["bsp", "ssp:2"])
def test_a_barrier_does_not_wait_for_a_killed_worker(tmp_path: Path, mode: str) -> None:
    with training(tmp_path, "--epochs=1", f"--mode={mode}", "--worker-restarts=0") as (launcher, run):
        wait_until(lambda: pushed(run, 1) > 20, "both workers push", 120.0)
        os.kill(worker_of(launcher, 1).pid, signal.SIGKILL)
    trace = np.load(run / "trace.npy")
    assert (uses(trace, 1, 57_000) == 1).all()
    assert json.loads((run / "summary.json").read_text())["status"] == "ended"


def test_a_worker_that_joins_in_the_middle_takes_its_share(tmp_path: Path) -> None:
    with training(tmp_path, f"--epochs={ENDLESS}") as (launcher, run):
        wait_until(lambda: pushed(run, 1) > 20, "two workers push", 120.0)
        announcement = (run / "logs" / "ps-0.log").read_text().splitlines()[0]
        late = Process(
            tmp_path / "late.log",
            "-m",
            "downpour.worker",
            f"--server={json.loads(announcement)['address']}",
            "--xla=off",
        )
        try:
            wait_until(lambda: pushed(run, 2) > 0, "the third pushes too", 120.0)
            launcher.child.send_signal(signal.SIGINT)
            assert launcher.wait() == 0
            assert late.wait() == 0
        finally:
            late.kill()
    trace = np.load(run / "trace.npy")
    used = uses(trace, int(trace["epoch"].max()) + 1, 57_000)
    assert used.max() == 1 and used.sum() == json.loads((run / "summary.json").read_text())["samples"]


def test_workers_wait_for_a_server_that_is_restarted_by_hand(tmp_path: Path) -> None:
    """The server is away longer than the timeout of any call: the worker gives up its session and registers again."""
    settings = {"workers": 1, "epochs": 1, "batch_size": 16, "checkpoint_every": "0.2s"}
    with running(tmp_path, 1, **settings) as cluster:
        flags = [f"--server={cluster.address}", "--xla=off", "--call-timeout-s=1"]
        worker = cluster.start("worker", "-m", "downpour.worker", *flags)
        wait_until(lambda: checkpointed(cluster.run, 20), "training has begun and is kept", 120.0)
        cluster.servers[0].kill()
        wait_until(lambda: "registering again" in worker.errors, "the worker has given its session up")
        start_again(cluster, 0, cluster.address, **settings)
        assert worker.wait(120.0) == 0, worker.errors
        assert cluster.servers[-1].wait() == 0
        assert (uses(cluster.trace(), 1, 57_000) == 1).all()


# ------------------------------------------------------------------ a network that is cut


class TwoNetworks:
    """Two network namespaces and a virtual cable between them; `server` is 10.77.0.1 and `worker` 10.77.0.2."""

    def __init__(self) -> None:
        self.server, self.worker = (f"downpour-{side}-{os.getpid()}" for side in "ab")

    def __enter__(self) -> TwoNetworks:
        for name in (self.server, self.worker):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", self.server, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", self.worker)
        for name, host in ((self.server, 1), (self.worker, 2)):
            _ip("-n", name, "address", "add", f"10.77.0.{host}/24", "dev", "cable")
            _ip("-n", name, "link", "set", "cable", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self.server, self.worker):
            subprocess.run(["ip", "netns", "delete", name], check=False)

    def cable(self, state: str) -> None:
        """Set the link `down` or `up`."""
        _ip("-n", self.worker, "link", "set", "cable", state)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may cut a network")
def test_a_worker_whose_network_is_cut_and_healed_joins_again_and_nothing_is_lost(tmp_path: Path) -> None:
    """Beyond loopback, so with TLS and a token. Worker 1 loses the server for longer than its session."""
    samples, epochs, batch = 4096, 2, 8
    assert certs(CertsSettings(folder=str(tmp_path / "certs"))) == 0
    (tmp_path / "flags").write_bytes(bytes(SIZE_BYTES))
    chaos_flags = SharedFlags(tmp_path / "flags")
    env = {
        FILE_VARIABLE: str(tmp_path / "flags"),
        SHAPE_VARIABLE: f"1 {samples} 10",
        "DOWNPOUR_TLS_DIR": str(tmp_path / "certs"),
    }
    cluster = Cluster(tmp_path)
    with TwoNetworks() as networks:
        try:
            flags = [
                "--bind=10.77.0.1:0", f"--run-dir={cluster.run}", "--workers=2", f"--epochs={epochs}", "--session-s=2",
                f"--batch-size={batch}", f"--learning-rate={RATE}", "--lease-batches=8", "--checkpoint-every=0.5s",
            ]  # fmt: skip
            inside = ["ip", "netns", "exec", networks.server]
            server = cluster.start("ps-0", "-m", "downpour.ps", *flags, env=env, before=inside)
            address = server.announcement()["address"]
            workers = []
            for number, name in enumerate((networks.server, networks.worker)):
                command = ["-m", "downpour.bench.chaos.worker", f"--server={address}", f"--worker={number}"]
                workers.append(cluster.start(f"w{number}", *command, env=env, before=["ip", "netns", "exec", name]))
            wait_until(lambda: pushed(cluster.run, 1) > 5, "the far worker pushes")
            networks.cable("down")
            wait_until(lambda: "worker 1 has sent no heartbeat" in server.errors, "its session has ended")
            before = pushed(cluster.run, 0)
            wait_until(lambda: pushed(cluster.run, 0) > before + 20, "the near worker continues")
            networks.cable("up")
            wait_until(lambda: pushed(cluster.run, 1, incarnation=2) > 5, "the far worker is back")
            chaos_flags[NO_PAUSE] = 1
            assert [worker.wait() for worker in workers] == [0, 0], [worker.errors for worker in workers]
            assert server.wait() == 0
        finally:
            cluster.close()
    found = faults_in_run(cluster.run, 1, epochs, batch)
    assert found.faults == [] and found.samples == samples * epochs
