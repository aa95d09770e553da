"""Constant gradients: every pulled slice is constant, and its content proves its version (and C1, exactly)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.trace.format import applied
from downpour.worker.exchange.client import Pulled
from tests.support.cluster import Member, running, vector_layout

N = 1_200_000  # a pull is several messages: other workers push between two of them
WORKERS, PUSHES = 4, 12


@pytest.mark.parametrize(("shards", "transport"), [(1, "grpc"), (2, "grpc"), (2, "auto")])
def test_no_read_is_torn_and_staleness_adds_up(tmp_path: Path, shards: int, transport: str) -> None:
    layout = vector_layout(N)
    parts = layout.cut(shards)
    gradient = -np.ones(N, np.float32)

    def check(pulled: Pulled) -> None:
        for part, version in zip(parts, pulled.versions, strict=True):
            piece = pulled.flat[part.start : part.stop]
            assert (piece.min(), piece.max()) == (version, version)

    def work(member: Member) -> list[tuple[pb.Reply, ...]]:
        replies = []
        for _ in range(PUSHES):
            pulled = member.push_pull(gradient)
            check(pulled)
            replies.append(pulled.replies)
        return replies

    with running(tmp_path, shards, workers=WORKERS, learning_rate=1) as cluster:
        members = cluster.train(layout, WORKERS, transport=transport)
        for member in members:
            check(member.pull())
        with ThreadPoolExecutor(WORKERS) as pool:
            replies = list(pool.map(work, members))
        cluster.stop()
        total = WORKERS * PUSHES
        for shard in range(shards):
            last = [each[-1][shard] for each in replies]
            staleness = [reply[shard].staleness for each in replies for reply in each]
            assert all(reply[shard].version == reply[shard].applied_version for each in replies for reply in each)
            ages = [total - reply.version for reply in last]  # of the gradients that each worker would push next
            assert sum(staleness) + sum(ages) == (WORKERS - 1) * total
            trace = applied(cluster.trace(shard))
            assert trace["staleness"].sum() == sum(staleness)
            np.testing.assert_array_equal(trace["version"] - 1 - trace["base_version"], trace["staleness"])
            np.testing.assert_array_equal(trace["version"], np.arange(1, total + 1))
