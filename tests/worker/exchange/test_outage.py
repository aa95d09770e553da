"""Workers that were started by hand, whose server dies: they report it at once and wait for its return."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from downpour.deploy.scripts.script_settings import SCRIPT_JOB
from downpour.protos.transports import TRANSPORTS
from tests.support.cluster import Cluster, Process, wait_until
from tests.support.processes.restarts import checkpointed, start_again

NOTICED = "the server at {} does not answer: waiting up to {} s for it to return"


def started(cluster: Cluster, reconnect_s: str) -> Process:
    """A worker that trains at a server which has written a checkpoint."""
    cluster.serve(1, workers=1, epochs=1000, reconnect_s=reconnect_s, checkpoint_every="0.1s")
    worker = cluster.start("worker", "-m", "downpour.worker", f"--server={cluster.address}")
    wait_until(lambda: checkpointed(cluster.run, 1), "a checkpoint of what was trained is written")
    return worker


def test_a_worker_whose_server_does_not_return_exits_with_a_message(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        worker = started(cluster, "2")
        cluster.servers[0].kill()
        assert worker.wait() == 1
        assert NOTICED.format(cluster.address, 2) in worker.errors
        last = worker.errors.splitlines()[-1]
        lost = f"downpour worker: the server at {cluster.address} was lost and did not return within 2 s"
        assert last.startswith(lost)
        assert "can be resumed" in last
    finally:
        cluster.close()


@pytest.mark.slow
def test_a_scripts_worker_notices_too_and_does_not_wait_for_what_cannot_come(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    flags = ("--workers=1", "--reconnect-s=10", "--checkpoint-every=off")
    try:
        server = cluster.start("ps-0", "-m", "downpour.ps", f"--run-dir={cluster.run}", *SCRIPT_JOB, *flags)
        address = server.announcement()["address"]
        script = ("tests/scripts/long_fit.py", str(tmp_path), "100000")
        worker = cluster.start("worker", "-m", "downpour.worker.fit", f"--server={address}", "--worker=0", *script)
        assert worker.child.stdout is not None
        assert b"EPOCH 0\n" in iter(worker.child.stdout.readline, b"")
        server.kill()
        assert worker.wait() == 3
        assert NOTICED.format(address, 10) in worker.errors
        assert f"the server at {address} was lost and did not return within 10 s (its --reconnect-s)" in worker.errors
        assert "resume" not in worker.errors
    finally:
        cluster.close()


@pytest.mark.slow
def test_a_worker_continues_when_its_server_is_back_and_can_be_stopped_while_it_waits(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        worker = started(cluster, "600")
        noticed = NOTICED.format(cluster.address, 600)
        cluster.servers[0].kill()
        wait_until(lambda: noticed in worker.errors, "the worker has missed the server")
        again = start_again(cluster, 0, cluster.address, workers=1, epochs=1000, reconnect_s=600)
        back = re.compile(r"answers again, after .* s\n(.*\n)*.*worker 0, incarnation 2, joined")
        wait_until(lambda: back.search(worker.errors), "the worker has joined again")
        again.kill()
        wait_until(lambda: worker.errors.count(noticed) == 2, "the worker has missed the server again")
        worker.child.send_signal(signal.SIGINT)
        assert worker.wait() == 0
        assert worker.errors.splitlines()[-1].endswith("stopped by a signal: left the job")
    finally:
        cluster.close()


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("shard", [0, 1])
def test_a_worker_continues_after_a_server_was_suspended_for_longer_than_a_call_may_last(
    tmp_path: Path, transport: str, shard: int
) -> None:
    cluster = Cluster(tmp_path)
    flags = {"transport": transport, "checkpoint_every": "0.1s", "epochs": 1000, "session_s": 5}
    try:
        cluster.serve(2, workers=1, reconnect_s=60, **flags)
        own = ("-m", "downpour.worker", f"--server={cluster.address}", "--call-timeout-s=2", "--xla=off")
        worker = cluster.start("worker", *own)
        wait_until(lambda: checkpointed(cluster.run, 1), "a checkpoint of what was trained is written")
        suspended = cluster.servers[shard].child
        suspended.send_signal(signal.SIGSTOP)
        try:
            silent = re.compile("does not answer|must reply within 2 s|no answer")
            wait_until(lambda: silent.search(worker.errors), "the worker has missed the server")
            assert worker.child.poll() is None
        finally:
            suspended.send_signal(signal.SIGCONT)
        updates = cluster.status().version
        wait_until(lambda: cluster.status().version > updates + 100, "it trains again")
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.errors
    finally:
        cluster.close()
