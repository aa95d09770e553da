"""`downpour status --serve` and the health probe, against a coordinator that only pretends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from downpour.deploy.config import HealthSettings
from downpour.deploy.view.health import health
from downpour.deploy.view.http_status import Endpoint
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.parameter_server_pb2_grpc import add_CoordinatorServicer_to_server
from tests.support.paths import ROOT
from tests.support.processes.fake_cluster import FakeCoordinator

LIMIT_S = 60.0


class Job:
    """A job in this process, and its health."""

    def __init__(self) -> None:
        self.coordinator, self.health = FakeCoordinator(leases=0), HealthServicer()
        self.coordinator.phase = "training"
        self.server = grpc.server(ThreadPoolExecutor(8))
        add_CoordinatorServicer_to_server(self.coordinator, self.server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def end(self) -> None:
        with self.coordinator.changed:
            self.coordinator.phase = "ended"
            self.coordinator.changed.notify_all()


@pytest.fixture
def job() -> Iterator[Job]:
    job = Job()
    yield job
    job.end()
    job.server.stop(None).wait()


@pytest.fixture
def served(job: Job) -> Iterator[tuple[subprocess.Popen[str], str]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DOWNPOUR_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "downpour.deploy.cli", "status", job.address, "--serve=127.0.0.1:0", "--every-s=0.1"],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env=clean,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    yield process, line.split()[-1]
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait(LIMIT_S)
    process.stdout.close()


def test_the_newest_progress_is_served_and_it_ends_with_the_job(
    job: Job, served: tuple[subprocess.Popen[str], str]
) -> None:
    process, url = served
    progress = None
    while progress is None:  # the first response may precede the first progress
        try:
            with urllib.request.urlopen(url, timeout=LIMIT_S) as reply:
                assert reply.headers["Content-Type"] == "application/json"
                progress = json.load(reply)
        except urllib.error.HTTPError as refusal:
            assert refusal.code == 503
            refusal.close()
    assert (progress["phase"], progress["model"]) == ("training", "sigmoid100")
    job.end()
    assert process.wait(LIMIT_S) == 0


def test_there_is_one_page_and_nothing_is_written(served: tuple[subprocess.Popen[str], str]) -> None:
    _, url = served
    for request in (f"{url}etc/passwd", urllib.request.Request(url, method="POST", data=b"x")):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(request, timeout=LIMIT_S)
        assert refusal.value.code in (404, 501)
        refusal.value.close()


def test_an_address_in_use_is_refused_with_its_name(job: Job) -> None:
    endpoint = Endpoint("127.0.0.1:0")
    taken = f"127.0.0.1:{endpoint.server_address[1]}"
    try:
        command = [sys.executable, "-m", "downpour.deploy.cli", "status", job.address, f"--serve={taken}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=ROOT)
    finally:
        endpoint.server_close()
    assert done.returncode == 2
    assert f"--serve must be a free address of this machine; received {taken}" in done.stderr


def test_the_probe_detects_whether_a_server_is_serving(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    settings = HealthSettings(address=job.address)
    job.health.set("", health_pb2.HealthCheckResponse.SERVING)
    assert health(settings) == 0
    job.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert health(settings) == 1
    job.server.stop(None).wait()
    assert health(HealthSettings(address=job.address, timeout_s=2.0)) == 1
    assert job.address in capsys.readouterr().err


def test_the_health_of_an_endpoint_is_that_of_its_coordinator() -> None:
    endpoint = Endpoint("127.0.0.1:0")
    thread = threading.Thread(target=endpoint.serve_forever, daemon=True)
    thread.start()

    def status() -> int:
        try:
            with urllib.request.urlopen(f"{endpoint.url}healthz", timeout=LIMIT_S) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return refusal.code

    try:
        found = [status()]
        endpoint.publish(pb.Progress())
        found.append(status())
        endpoint.lost()
        found.append(status())
        assert found == [503, 200, 503]
    finally:
        endpoint.shutdown()
        endpoint.server_close()
        thread.join()


class ShrinkingEndpoint(Endpoint):
    """Another thread publishes a shorter status between any two reads."""

    reads = 0

    @property
    def body(self) -> bytes:
        self.reads += 1
        return b" " * (100 - self.reads)


def test_a_status_published_during_a_response_does_not_change_its_length() -> None:
    endpoint = ShrinkingEndpoint("127.0.0.1:0")
    thread = threading.Thread(target=endpoint.serve_forever, daemon=True)
    thread.start()
    try:
        with urllib.request.urlopen(endpoint.url, timeout=LIMIT_S) as reply:
            assert len(reply.read()) == int(reply.headers["Content-Length"])
    finally:
        endpoint.shutdown()
        endpoint.server_close()
        thread.join()
