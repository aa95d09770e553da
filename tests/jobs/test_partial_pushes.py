"""Pushes of some tensors over every transport and codec, to several shards of real servers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.codecs.codec import CODECS
from downpour.protos.coverage import bitmap_of
from downpour.protos.layout import STATE, TRAINED, Layout
from downpour.protos.transports import TRANSPORTS
from tests.support.cluster import running

SIZES = (600, 1, 300, 2000)
N = sum(SIZES)
LAYOUT = Layout.of([*((f"w{i}", (size,), TRAINED) for i, size in enumerate(SIZES)), ("mean", (3,), STATE)])
SETS = ([1], [0, 2], [3], [0, 1, 2, 3], [2])


def mask_of(chosen: list[int]) -> np.ndarray:
    return np.repeat([index in chosen for index in range(len(SIZES))], SIZES)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("codec", CODECS)
def test_the_covered_tensors_arrive_and_no_others(tmp_path: Path, codec: str, transport: str) -> None:
    """With plain SGD the weights fall by what was pushed: error feedback sends the rest of a tensor when it is covered.

    Three shards, so that one has no element of some pushes.
    """
    name = f"{codec}:0.5" if codec == "topk" else codec
    with running(tmp_path, shards=3, workers=1, learning_rate=1.0, codec=name) as cluster:
        (member,) = cluster.train(LAYOUT, 1, transport=transport)
        assert set(member.client.transports) == {transport}
        expected, state = np.zeros(N, np.float32), 0.0
        before = member.pull().flat.copy()
        for seq, chosen in enumerate(SETS * 3):
            mask = mask_of(chosen)
            gradient = np.random.default_rng(seq).integers(-8, 9, N).astype(np.float32)
            payload = np.concatenate([gradient[mask], np.full(3, 2.0, np.float32)])
            pulled = member.push_pull(payload, tensors=bitmap_of(chosen, len(SIZES)))
            assert all(reply.outcome == pb.APPLIED for reply in pulled.replies)
            assert pulled.versions == (seq + 1,) * 3
            after = pulled.flat.copy()
            np.testing.assert_array_equal(after[:N][~mask].view(np.uint32), before[:N][~mask].view(np.uint32))
            expected[mask] -= gradient[mask]
            state += 2.0
            assert (after[N:] == state).all()
            before = after
        residual = np.concatenate([r for r in member.client._feedback.residuals] or [np.zeros(0, np.float32)])
        total = before[:N] - residual if len(residual) else before[:N]
        np.testing.assert_allclose(total, expected, atol=0 if codec in ("float32", "topk") else 1e-3)
