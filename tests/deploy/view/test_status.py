"""`downpour status` and the watcher show what a coordinator reports."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from downpour.deploy.view.watcher import Watcher
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.parameter_server_pb2_grpc import add_CoordinatorServicer_to_server
from tests.support.cluster import wait_until
from tests.support.command_line import TIMEOUT_S, run
from tests.support.paths import ROOT
from tests.support.processes.fake_cluster import FakeCoordinator

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def coordinator() -> Iterator[tuple[FakeCoordinator, str]]:
    """A coordinator in this process, and its address."""
    fake, server = FakeCoordinator(leases=0), grpc.server(ThreadPoolExecutor(8))
    add_CoordinatorServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    fake.members, fake.phase, fake.used = {0: 1, 1: 2}, "training", 500
    yield fake, f"127.0.0.1:{port}"
    server.stop(None).wait(TIMEOUT_S)


def test_status_shows_job_and_workers(coordinator: tuple[FakeCoordinator, str]) -> None:
    done = run("status", coordinator[1])
    assert done.returncode == 0, done.stderr
    assert "epoch 6/10" in done.stdout
    assert "sigmoid100 · mnist · async" in done.stdout
    assert re.search(r"^ +0  training +250 ", done.stdout, re.MULTILINE)


def test_status_as_json_has_numbers_and_null_for_what_is_not_known(
    coordinator: tuple[FakeCoordinator, str],
) -> None:
    status = json.loads(run("status", coordinator[1], "--json").stdout)
    assert status["samples"] == 500 * 32
    assert status["test_accuracy"] is None
    assert [worker["incarnation"] for worker in status["workers"]] == [1, 2]


def test_status_watch_ends_with_the_job(coordinator: tuple[FakeCoordinator, str]) -> None:
    fake, address = coordinator
    command = [sys.executable, "-m", "downpour.deploy.cli", "status", address, "--watch", "--every-s=0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("epoch 6/10")
        with fake.changed:
            fake.phase = "ended"
            fake.changed.notify_all()
        lines = watching.stdout.read().splitlines()
        assert watching.wait(TIMEOUT_S) == 0
    assert [line for line in lines if not line.startswith("  worker ")][-1].startswith("ended")


def test_the_status_of_an_unreachable_server_names_the_address() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound without listening, so that no other process takes the port
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        done = run("status", address)
    assert done.returncode == 1
    assert f"no parameter server answers at {address}" in done.stderr


def test_the_status_of_an_unresponsive_server_ends_at_the_deadline() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        done = run("status", address, "--timeout-s=0.5")
    assert done.returncode == 1
    assert address in done.stderr


class Repeating(FakeCoordinator):
    """Breaks every stream off, and begins the next with the first note again."""

    def __init__(self) -> None:
        super().__init__(leases=0)
        self.notes, self.streams = ["first", "first", "second"], 0

    def Watch(self, request: pb.WatchRequest, context: grpc.ServicerContext) -> Iterator[pb.Progress]:
        self.streams += 1
        if self.streams == 3:
            self.notes.append("third")
            self.phase = "failed"
        yield self.progress()


def test_a_watcher_returns_each_note_once_and_ends_with_the_job() -> None:
    fake = Repeating()
    server = grpc.server(ThreadPoolExecutor(4))
    add_CoordinatorServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    watcher = Watcher(f"127.0.0.1:{port}")
    try:
        wait_until(lambda: not watcher._thread.is_alive(), "the job has ended and the watcher with it")
        assert watcher.take()[1] == ["first", "first", "second", "third"]
        assert fake.streams == 3
    finally:
        watcher.close()
        server.stop(0).wait()
