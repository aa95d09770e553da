"""C2 over real gRPC: with equal, constant service, staleness is P − 1 after warm-up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.cluster import running, vector_layout

WARM_UP, ROUNDS = 1, 5


@pytest.mark.parametrize("transport", ["grpc", "auto"])
def test_staleness_of_workers_that_take_turns(tmp_path: Path, transport: str) -> None:
    layout = vector_layout(8)
    gradient = np.ones(8, np.float32)
    with running(tmp_path, workers=2, learning_rate=0.5) as cluster:
        members = cluster.train(layout, 2, transport=transport)
        for workers in (2, 4, 8):
            while len(members) < workers:
                members.append(cluster.join(layout, transport=transport))
            for member in members:
                member.pull()
            taken = [
                [member.push_pull(gradient).replies[0].staleness for member in members] for _ in range(WARM_UP + ROUNDS)
            ]
            assert taken[0] == list(range(workers))
            assert taken[WARM_UP:] == [[workers - 1] * workers] * ROUNDS
