"""Invalid input on the control plane, or on the command line, is refused with a message that states what to do."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from downpour.deploy.runs import address_of
from downpour.deploy.runs import running as running_jobs
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError, JobConflict, LayoutMismatch, UnknownWorker, Unreachable, Unsupported
from downpour.protos.layout import TRAINED, Layout
from downpour.protos.protocol import PROTOCOL
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from tests.support.cluster import DATA, DEADLINE_S, Cluster, Member, Process, running, wait_until
from tests.support.processes.raw_frames import LAYOUT, ONES

LIMIT_S = 120.0  # a worker loads TensorFlow first
RESHAPED = Layout.of([("w", (3, 2), TRAINED)])


def registration(cluster: Cluster, **fields: Any) -> pb.RegisterRequest:
    job = cluster.members[0].job.job
    request = pb.RegisterRequest(protocol=PROTOCOL, job=job, layout=LAYOUT.to_proto(), data=DATA)
    for name, value in fields.items():
        request.ClearField(name)
        request.MergeFrom(pb.RegisterRequest(**{name: value}))
    return request


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"layout": RESHAPED.to_proto()}, LayoutMismatch, r"'w' \[6\]; received 'w' \[3, 2\]"),
        (
            {"data": pb.DatasetInfo(name="x", checksum="e" * 64, train_samples=640)},
            LayoutMismatch,
            "cccc.*eeee.*same data file",
        ),
        ({"job": "another"}, JobConflict, "received a worker of job 'another'. Start another server"),
        ({"protocol": 99}, Unsupported, f"protocol {PROTOCOL}; received 99. Install the same version"),
    ],
)
def test_a_worker_of_another_job(
    cluster: Cluster, member: Member, fields: dict[str, Any], error: type[DownpourError], says: str
) -> None:
    control = CoordinatorClient(cluster.address, DEADLINE_S)
    with pytest.raises(error) as caught:
        control.register(registration(cluster, **fields))
    assert re.search(says, str(caught.value)), str(caught.value)
    control.close()


def test_a_worker_with_another_model_names_the_first_tensor_that_differs_and_does_not_come_back(
    cluster: Cluster, member: Member
) -> None:
    """A worker process that is started by hand, with the model of another job."""
    worker = cluster.start("worker", "-m", "downpour.worker", f"--server={cluster.address}", "--xla=off")
    assert worker.wait(LIMIT_S) == 3
    last = worker.errors.splitlines()[-1]
    assert re.search(r"downpour worker: .*model must be the job's.*'w' \[6\]; received '\S+' \[784, 100\]", last), last


def test_a_session_ends_when_its_worker_is_silent(tmp_path: Path) -> None:
    with running(tmp_path, workers=1, session_s=1) as cluster:
        (member,) = cluster.train(LAYOUT, 1, beats=False)
        member.pull()
        wait_until(lambda: not cluster.status().workers, "the silent worker's session has ended")
        with pytest.raises(UnknownWorker, match="register again"):
            member.push_pull(ONES)
        with pytest.raises(UnknownWorker, match="register again"):
            member.control.lease(member.session.session)


def closed_port() -> tuple[socket.socket, str]:
    """A port that another process has bound without listening."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken, f"127.0.0.1:{taken.getsockname()[1]}"


def test_a_server_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    taken, address = closed_port()
    with taken:
        with pytest.raises(Unreachable, match=f"{address}.*Start the server at this address first"):
            CoordinatorClient(address, 1.0).describe(0.5)
        flags = (f"--server={address}", "--connect-timeout-s=0.5")
        worker = Process(tmp_path / "log", "-m", "downpour.worker", *flags)
        assert worker.wait() == 1
        worker.kill()
        assert address in worker.errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_looks_for_its_server_can_be_stopped(tmp_path: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # who connects has begun to look for the server
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        worker = Process(tmp_path / "log", "-m", "downpour.worker", f"--server={address}")
        try:
            connection, _ = silent.accept()
            with connection:
                worker.child.send_signal(number)
                assert worker.wait() == 0
        finally:
            worker.kill()
        assert worker.errors == "downpour worker: stopped by a signal before training\n"


def test_a_port_in_use_is_named_and_leaves_no_run_behind(cluster: Cluster, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    server = Process(tmp_path / "log", "-m", "downpour.ps", f"--bind={cluster.address}", f"--runs-dir={runs}")
    assert server.wait() == 1
    server.kill()
    assert re.search(f"must be a free address.*received {cluster.address}.*port 0", server.errors), server.errors
    assert len(server.errors.splitlines()) == 1, server.errors  # gRPC has nothing to add
    assert not runs.exists()


def test_a_shard_says_that_it_waits_for_its_coordinator_and_can_be_interrupted(tmp_path: Path) -> None:
    free = socket.create_server(("127.0.0.1", 0))  # accepts connections, and answers none of them
    address = f"127.0.0.1:{free.getsockname()[1]}"
    shard = Process(tmp_path / "log", "-m", "downpour.ps", "--shards=2", "--shard=1", f"--coordinator={address}")
    try:
        shard.announcement()
        wait_until(lambda: f"waiting for the coordinator at {address} for 2 s" in shard.errors, "it says so")
        shard.child.send_signal(signal.SIGINT)
        assert shard.wait() == 0
        assert f"ended by a signal before {address} had answered" in shard.errors
    finally:
        shard.kill()
        free.close()


def test_a_client_says_that_it_waits_for_a_job_that_lacks_a_shard(tmp_path: Path) -> None:
    flags = ("--script", "--shards=2", f"--run-dir={tmp_path / 'run'}")
    server, client = Process(tmp_path / "log", "-m", "downpour.ps", *flags), None
    try:
        address = server.announcement()["address"]
        joins = f"import downpour; downpour.connect('{address}', {{'w': [1.0]}})"
        client = Process(tmp_path / "client", "-c", joins)
        wait_until(lambda: f"waiting for the job at {address} to begin (" in client.errors, "it says so")
        wait_until(lambda: ": 1 of 2 joined" in server.errors, "the server says why")
    finally:
        for process in (client, server):
            if process is not None:
                process.kill()


def test_the_newest_run_is_one_that_has_trained(tmp_path: Path) -> None:
    """An attempt that ends before its first update leaves the link as it was."""
    latest = tmp_path / "latest"
    with running(tmp_path, workers=1) as cluster:
        assert not latest.exists()
        (member,) = cluster.train(LAYOUT, 1)
        member.pull()
        member.push_pull(ONES)
        wait_until(latest.exists, "the run is the newest")
        assert address_of(str(latest)) == cluster.address
    attempt = Process(tmp_path / "log", "-m", "downpour.ps", f"--runs-dir={tmp_path}")
    try:
        address = attempt.announcement()["address"]
        assert [path.read_text().strip() for path in tmp_path.glob("*-sigmoid100/address")] == [address]
        attempt.child.send_signal(signal.SIGTERM)
        assert attempt.wait() == 0
    finally:
        attempt.kill()
    assert latest.resolve() == cluster.run
    assert not list(tmp_path.glob("*-sigmoid100/address")), "a server that has ended has no address"
    assert running_jobs(tmp_path) == [], "one that was killed is known to be gone"
