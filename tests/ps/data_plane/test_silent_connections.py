"""Connections that never identify themselves, of this user and of another, take nothing from a shard."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from downpour.protos.shared_memory import doorbell_socket, memfd
from downpour.ps.data_plane.shared_memory import MAX_UNATTACHED
from tests.support.cluster import Cluster, running, wait_until
from tests.support.processes.shared_memory import LAYOUT, ONES, doorbell, transport_of

pytestmark = pytest.mark.skipif(not memfd.available(), reason="this system has no memfd: auto is gRPC there")
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a process of another user")
DESCRIPTORS = 256

CALLING = """
import os, socket, sys
os.setuid(65534)
held = []
for _ in range(int(sys.argv[2])):
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.settimeout(20)
    line.connect("\\0" + sys.argv[1])
    held.append(line)
print("connected", flush=True)
sys.stdin.read()
"""
LISTENING = """
import os, socket, sys
os.setuid(65534)
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
line.bind("\\0" + sys.argv[1])
line.listen(8)
print("listening", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_user(code: str, *arguments: str) -> Iterator[None]:
    """Run code that changes its user, until the block ends; it has begun when it prints a line."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None and process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path, workers=1, learning_rate=1) as cluster:
        pid = cluster.servers[0].child.pid
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        yield cluster


def descriptors(cluster: Cluster) -> int:
    return len(os.listdir(f"/proc/{cluster.servers[0].child.pid}/fd"))


def works(cluster: Cluster) -> None:
    """A new worker attaches over shared memory, pushes and pulls; the server has nothing to say about it."""
    member = cluster.join(LAYOUT, transport="shm")
    assert transport_of(member) and member.pull().versions
    member.push_pull(ONES)
    assert cluster.status().phase == "training"
    assert "Traceback" not in cluster.servers[0].errors and len(cluster.servers[0].errors) < 10_000


def test_silent_connections_of_this_user_are_bounded_and_training_continues(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    before = descriptors(cluster)
    with ExitStack() as stack:
        for _ in range(400):
            line = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            line.settimeout(30)
            line.connect("\0" + doorbell(member))
        wait_until(lambda: descriptors(cluster) >= before + MAX_UNATTACHED, "it has accepted as many as it may")
        for _ in range(20):
            member.push_pull(ONES)
            assert descriptors(cluster) <= before + MAX_UNATTACHED + 8
        assert cluster.status().phase == "training"
    works(cluster)


@needs_root
def test_connections_of_another_user_are_closed_at_once(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    before = descriptors(cluster)
    with another_user(CALLING, doorbell(member), "400"):
        wait_until(lambda: descriptors(cluster) <= before + 8, "none of them is held")
        member.push_pull(ONES)
        works(cluster)


def test_descriptors_that_are_used_up_stop_no_training_and_fill_no_log(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    pid = cluster.servers[0].child.pid
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(cluster) + 4, DESCRIPTORS))
    with ExitStack() as stack:
        for _ in range(50):
            line = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            line.settimeout(30)
            line.connect("\0" + doorbell(member))
        for _ in range(20):
            member.push_pull(ONES)
        assert len(cluster.servers[0].errors) < 10_000
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    works(cluster)


@needs_root
def test_a_worker_attaches_to_no_server_of_another_user() -> None:
    name = f"downpour-test-{os.getpid()}"
    with another_user(LISTENING, name), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.settimeout(30)
        with pytest.raises(PermissionError, match=f"user {NOBODY} listens there"):
            doorbell_socket.connect(line, name)
