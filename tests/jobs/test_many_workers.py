"""320 workers on one host push through shared memory: nothing is lost, and the memory of the server stays bounded."""

from __future__ import annotations

import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.system import descriptors
from tests.support.cluster import Member, running, vector_layout

pytestmark = pytest.mark.slow

N, WORKERS, ROUNDS, PUSHES = 64, 320, 6, 30
RATE = 2.0**-20  # so that the sum of all pushes is exact in float32
GROWTH_BYTES = 16 << 20  # much less than the outcomes of all pushes would take
DESCRIPTORS = 4 * WORKERS + 256
LAYOUT = vector_layout(N)


def push_some(member: Member) -> None:
    for _ in range(PUSHES):
        assert member.push_pull(np.ones(N, np.float32)).replies[0].outcome == pb.APPLIED


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < DESCRIPTORS, reason=f"needs {DESCRIPTORS} descriptors"
)
def test_the_memory_of_a_server_does_not_grow_with_the_pushes_of_320_workers(tmp_path: Path) -> None:
    descriptors.raise_limit()
    flags: dict[str, Any] = {
        "workers": WORKERS,
        "learning_rate": RATE,
        "session_s": 600,
        "checkpoint_every": "1s",
        "record": "off",
    }
    with running(tmp_path, **flags) as cluster, ThreadPoolExecutor(16) as pool:
        members = [cluster.join(LAYOUT, transport="shm", beats=False) for _ in range(WORKERS)]
        with ThreadPoolExecutor(WORKERS) as waiting:
            list(waiting.map(lambda member: member.await_start(np.zeros(N, np.float32)), members))
        list(pool.map(lambda member: member.pull(), members))
        server, sizes = psutil.Process(cluster.servers[0].child.pid), []
        for _ in range(ROUNDS):
            list(pool.map(push_some, members))
            sizes.append(server.memory_info().rss)
        total = WORKERS * ROUNDS * PUSHES
        final = members[0].pull()
        assert final.versions == (total,)
        np.testing.assert_array_equal(final.flat, np.full(N, -total * RATE, np.float32))
        assert sizes[-1] < sizes[1] + GROWTH_BYTES, sizes
        cluster.stop()
        assert len(cluster.trace()) == total
