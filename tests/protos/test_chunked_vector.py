"""Gradients that come in several messages and are not put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.chunked_vector import ChunkedVector, euclidean_norm
from downpour.protos.frame import Decoder, encode
from downpour.protos.layout import STATE, TRAINED, Layout
from downpour.protos.transports import TRANSPORTS
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.optimizer import BLOCK, Optimizer
from downpour.ps.core.push import Outcome, Push
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.rules.update_rules import OPTIMIZERS
from downpour.ps.core.shard import Shard
from tests.support.cluster import running

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def pieces_of(vector: np.ndarray, sizes: list[int]) -> ChunkedVector:
    ends = np.cumsum(sizes)
    return ChunkedVector([vector[end - size : end].tobytes() for end, size in zip(ends, sizes, strict=True)])


@given(SIZES, st.data())
def test_any_part_is_that_of_the_whole(sizes: list[int], data: st.DataObject) -> None:
    vector = np.arange(sum(sizes), dtype=np.float32)
    pieces = pieces_of(vector, sizes)
    start = data.draw(st.integers(0, len(vector)))
    stop = data.draw(st.integers(start, len(vector)))
    assert len(pieces) == len(vector)
    assert (pieces[start:stop] == vector[start:stop]).all()
    assert (pieces[start:] == vector[start:]).all() and (pieces[:] == vector).all()
    views = pieces.within(start, stop)
    assert (np.concatenate(views) == vector[start:stop]).all()
    assert all(any(np.may_share_memory(view, array) for array in pieces.arrays) for view in views if len(view))


def frame_of(gradient: np.ndarray, chunk_bytes: int, apart: bool) -> tuple[pb.Request, memoryview, list[bytes]]:
    decoder = Decoder(pb.Request, lambda header: 1 << 30, apart=lambda header: apart)
    for message in encode(pb.Request(), gradient.data.cast("B"), chunk_bytes=chunk_bytes):
        frame = decoder.feed(message)
    assert frame is not None and decoder.announced is None
    return frame.header, frame.payload, list(frame.parts)


@pytest.mark.parametrize("chunk_bytes", [40_000, 40_001, 4])
def test_a_frame_keeps_its_messages_where_they_hold_whole_elements(chunk_bytes: int) -> None:
    gradient = np.random.default_rng(0).normal(size=30_000).astype(np.float32)
    _, payload, parts = frame_of(gradient, chunk_bytes, apart=True)
    assert bool(parts) == (chunk_bytes % 4 == 0)
    assert (b"".join(parts) or bytes(payload)) == gradient.tobytes()


def test_messages_that_stop_being_whole_are_put_together() -> None:
    gradient = np.arange(1000, dtype=np.float32)
    raw, decoder = gradient.tobytes(), Decoder(pb.Request, lambda header: 1 << 20, apart=lambda header: True)
    header = next(encode(pb.Request(), raw, chunk_bytes=1))
    assert decoder.feed(header) is None
    assert decoder.feed(raw[:400]) is None and decoder.feed(raw[400:403]) is None
    frame = decoder.feed(raw[403:])
    assert frame is not None and not frame.parts and bytes(frame.payload) == raw


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("state", [0, 5])
def test_an_update_from_pieces_is_that_from_the_whole(name: str, state: int) -> None:
    n = 2 * BLOCK + 3
    draw = np.random.default_rng(1)
    weights, gradient = (draw.normal(size=n + state).astype(np.float32) for _ in range(2))
    found = []
    for form in (gradient, pieces_of(gradient, [BLOCK - 7, BLOCK, n - 2 * BLOCK + 7, *([state] if state else [])])):
        shard = Shard(weights, Optimizer(name, Hyperparameters(), n), consistency_of("async"))
        shard.join(0, 1)
        assert shard.reads_once
        result = shard.push(Push(worker=0, incarnation=1, seq=1, base_version=0), form)
        assert result.outcome == Outcome.APPLIED
        found.append(shard.pull()[0].array.copy())
    assert (found[0] == found[1]).all() and (found[0] != weights).any()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("codec", ["float32", "bfloat16"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_worker_pushes_pieces_as_it_pushes_the_whole(tmp_path: Path, transport: str, codec: str, shards: int) -> None:
    layout = Layout.of([("w", (700,), TRAINED), ("moving", (9,), STATE)])
    gradient = np.random.default_rng(2).integers(-9, 9, layout.size).astype(np.float32)
    with running(tmp_path, shards, workers=1, learning_rate=1, codec=codec) as cluster:
        (member,) = cluster.train(layout, 1, transport=transport)
        client = member.client
        client.push(gradient, member.push_info())
        whole = client.pulled().flat.copy()
        pieces = pieces_of(gradient, [1, 300, 398, 10])
        client.push(pieces, member.push_info())
        assert whole.any()
        if codec == "float32":  # they are not joined on the way to the transport
            (first, *_), (only, *_) = client._trained(0, pieces), pieces.arrays
            assert np.frombuffer(first, np.float32).ctypes.data == only.ctypes.data
        np.testing.assert_array_equal(client.pulled().flat, 2 * whole)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_in_any_piece_is_detected(bad: float) -> None:
    gradient = np.zeros(30, np.float32)
    gradient[25] = bad
    shard = Shard(np.ones(30, np.float32), Optimizer("sgd", Hyperparameters(), 30), consistency_of("async"))
    shard.join(0, 1)
    result = shard.push(Push(worker=0, incarnation=1, seq=1, base_version=0), pieces_of(gradient, [10, 10, 10]))
    assert (result.outcome, result.reason) == (Outcome.DROPPED, "nonfinite")
    assert (shard.pull()[0].array == 1).all()


@pytest.mark.parametrize("mode", ["bsp", "softsync:2", "kasync:2", "easgd:0.1,4", "localsgd:4"])
def test_modes_that_keep_or_reread_a_push_want_it_in_one_piece(mode: str) -> None:
    shard = Shard(np.ones(3, np.float32), Optimizer("sgd", Hyperparameters(), 3), consistency_of(mode))
    assert not shard.reads_once


@pytest.mark.parametrize("value", [1e30, 3e38, np.nan, np.inf, -np.inf])
def test_a_norm_is_finite_exactly_if_the_elements_are(value: float) -> None:
    vector = np.array([3.0, value, 4.0], np.float32)
    for each in (vector, pieces_of(vector, [1, 2])):
        assert np.isfinite(euclidean_norm(each)) == np.isfinite(value)
        if np.isfinite(value):
            assert euclidean_norm(each) == pytest.approx(np.linalg.norm(vector.astype(np.float64)))
    assert euclidean_norm(np.array([3.0, 4.0], np.float32)) == 5.0
