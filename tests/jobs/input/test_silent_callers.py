"""Callers that connect and say nothing stop neither checkpoints nor joins, and hold no descriptors for long."""

from __future__ import annotations

import os
import resource
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from downpour.protos.system.http import MAX_REQUESTS
from downpour.ps.storage.checkpoint_file import numbers
from tests.support.cluster import Cluster, vector_layout, wait_until

LAYOUT = vector_layout(100)
ONES = np.ones(100, np.float32)
DESCRIPTORS = 512


@contextmanager
def silent(address: str, count: int) -> Iterator[None]:
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        for _ in range(count):
            line = stack.enter_context(socket.socket())
            line.settimeout(30)
            line.connect((host, int(port)))
        yield


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("where", ["metrics", "address"])
def test_silent_callers_stop_neither_checkpoints_nor_joins(tmp_path: Path, where: str) -> None:
    cluster = Cluster(tmp_path)
    try:
        flags = ["--metrics-port=0", "--workers=1", "--checkpoint-every=0.05s"]
        limit = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh"]
        server = cluster.start("ps-0", "-m", "downpour.ps", f"--run-dir={cluster.run}", *flags, before=limit)
        announcement = server.announcement()
        cluster.address = str(announcement["address"])
        pid = server.child.pid
        (member,) = cluster.train(LAYOUT, 1, transport="shm")
        member.pull()
        before = len(os.listdir(f"/proc/{pid}/fd"))
        with silent(str(announcement[where]), 2 * DESCRIPTORS):
            if where == "metrics":
                assert len(os.listdir(f"/proc/{pid}/task")) < MAX_REQUESTS + 100
            newest = max(numbers(cluster.run / "checkpoints"), default=0)
            member.push_pull(ONES)
            wait_until(lambda: max(numbers(cluster.run / "checkpoints"), default=0) > newest, "a checkpoint is written")
            other = cluster.join(LAYOUT, transport="shm")
            other.pull()
            wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) < before + 100, "they are closed", 45.0)
        with urllib.request.urlopen(f"http://{announcement['metrics']}/metrics", timeout=10) as reply:
            assert b"downpour_version 1" in reply.read()
        assert "Traceback" not in server.errors
    finally:
        cluster.close()


@pytest.mark.parametrize("shard", [0, 1])
def test_a_metrics_port_that_is_taken_is_told_in_one_sentence(tmp_path: Path, shard: int) -> None:
    cluster = Cluster(tmp_path)
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            own = [f"--run-dir={cluster.run}"] if shard == 0 else ["--shard=1", "--coordinator=127.0.0.1:1"]
            server = cluster.start("ps", "-m", "downpour.ps", "--shards=2", f"--metrics-port={port}", *own)
            assert server.wait() == 1
        assert f"127.0.0.1:{port}" in server.errors and "--metrics-port" in server.errors
        assert len(server.errors.splitlines()) == 1
    finally:
        cluster.close()


def test_a_server_uses_all_descriptors_that_it_may(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        limit = ["sh", "-c", 'ulimit -S -n 200; exec "$@"', "sh"]
        server = cluster.start("ps-0", "-m", "downpour.ps", f"--run-dir={cluster.run}", before=limit)
        server.announcement()
        soft, hard = resource.prlimit(server.child.pid, resource.RLIMIT_NOFILE)
        assert soft == min(hard, 1 << 16) or hard == resource.RLIM_INFINITY
    finally:
        cluster.close()
