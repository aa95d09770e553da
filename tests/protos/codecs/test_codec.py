"""Laws of every codec: length, error bound, feedback, and refusal of what it did not write."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from downpour.protos.codecs.codec import CODECS, Codec, _made, codec_named
from downpour.protos.errors import InvalidRequest

# Every family, with its default and with parameters that cut short vectors into pieces.
NAMES = [*CODECS, "int8:7", "topk:0.3", "topk:1"]
TINY = 128 * float(np.finfo(np.float32).tiny)  # a processor may take a smaller scale for zero
VECTORS = arrays(np.float32, st.integers(1, 200), elements=st.floats(-1e6, 1e6, width=32))


def decoded(codec: Codec, payload: bytes, n: int) -> np.ndarray:
    out = np.full(n, np.nan, np.float32)
    codec.decode(payload, out)
    return out


def encoded(codec: Codec, vector: np.ndarray, seed: int = 0) -> bytes:
    return bytes(codec.encode(vector, np.random.default_rng(seed)))


def test_every_family_is_tried() -> None:
    assert {name.partition(":")[0] for name in NAMES} == set(CODECS)
    assert all(family.doc for family in CODECS.values())


@pytest.mark.parametrize("name", NAMES)
@given(vector=VECTORS)
def test_the_length_is_known_beforehand_and_every_element_comes_back(name: str, vector: np.ndarray) -> None:
    codec = codec_named(name)
    payload = encoded(codec, vector)
    assert len(payload) == codec.size_bytes(len(vector))
    back = decoded(codec, payload, len(vector))
    assert np.isfinite(back).all()
    if not codec.lossy:
        np.testing.assert_array_equal(back, vector)


@pytest.mark.parametrize("name", NAMES)
@given(vector=VECTORS)
def test_the_sent_part_and_the_residual_sum_to_the_vector(name: str, vector: np.ndarray) -> None:
    """Error feedback: `deduct` leaves exactly what was not sent."""
    codec = codec_named(name)
    payload = encoded(codec, vector)
    residual = vector.copy()
    codec.deduct(payload, residual)
    scale = float(np.abs(vector).max())
    np.testing.assert_allclose(residual + decoded(codec, payload, len(vector)), vector, rtol=1e-6, atol=1e-6 * scale)
    assert np.linalg.norm(residual) <= np.linalg.norm(vector) * (1 + 1e-6) or name.startswith("int8")


@pytest.mark.parametrize("name", ["bfloat16", "int8", "int8:7"])
@given(vector=VECTORS)
def test_the_error_of_a_rounded_element_is_bounded(name: str, vector: np.ndarray) -> None:
    back = decoded(codec_named(name), encoded(codec_named(name), vector), len(vector))
    error = np.abs(back.astype(np.float64) - vector)
    if name == "bfloat16":
        assert (error <= 2**-8 * np.abs(vector) + 1e-38).all()
        return
    block = int(name.partition(":")[2] or 1024)
    for start in range(0, len(vector), block):
        level = float(np.abs(vector[start : start + block]).max()) / 127
        assert (error[start : start + block] <= level * (1 + 1e-5) + TINY).all()


@given(vector=VECTORS, fraction=st.sampled_from([0.1, 0.3, 1.0]))
def test_topk_keeps_the_largest_elements_exactly(vector: np.ndarray, fraction: float) -> None:
    codec = codec_named(f"topk:{fraction}")
    back = decoded(codec, encoded(codec, vector), len(vector))
    sent = codec.size_bytes(len(vector)) // 8
    kept = back != 0
    np.testing.assert_array_equal(back[kept], vector[kept])
    dropped = np.abs(vector[~kept]).max(initial=0.0)
    assert kept.sum() <= sent
    assert dropped <= np.sort(np.abs(vector))[-sent]
    energy = np.square(vector, dtype=np.float64).sum()
    assert np.square((back - vector).astype(np.float64)).sum() <= (1 - sent / len(vector)) * energy * (1 + 1e-6)


def test_int8_is_unbiased() -> None:
    vector = np.linspace(-1, 1, 50, dtype=np.float32)
    codec = codec_named("int8")
    mean = np.mean([decoded(codec, encoded(codec, vector, seed), 50) for seed in range(2_000)], axis=0)
    np.testing.assert_allclose(mean, vector, atol=6 * (1 / 127) / np.sqrt(2_000))


@pytest.mark.parametrize("name", NAMES)
@given(n=st.integers(1, 50), change=st.sampled_from([-3, -1, 1, 4]))
def test_another_length_is_refused(name: str, n: int, change: int) -> None:
    codec = codec_named(name)
    payload = bytes(max(0, codec.size_bytes(n) + change))
    with pytest.raises(InvalidRequest, match=f"received {len(payload)}"):
        decoded(codec, payload, n)


@pytest.mark.parametrize("name", NAMES)
@given(n=st.integers(1, 60), data=st.data())
def test_garbage_of_the_right_length_is_refused_or_stays_within_the_vector(
    name: str, n: int, data: st.DataObject
) -> None:
    codec = codec_named(name)
    size = codec.size_bytes(n)
    payload = data.draw(st.binary(min_size=size, max_size=size))
    guarded = np.zeros(n + 2, np.float32)
    with np.errstate(all="ignore"):
        with suppress(InvalidRequest):
            codec.decode(payload, guarded[1:-1])
    assert guarded[0] == guarded[-1] == 0


@pytest.mark.parametrize("name", ["zip", "", "topk:", "topk:0", "topk:2", "topk:x", "int8:0", "float32:1"])
def test_an_unknown_codec_is_refused_with_the_requirement(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"must .*received '{name}'"):
        codec_named(name)


def test_names_that_callers_send_take_bounded_memory() -> None:
    for number in range(1, 1001):
        codec_named(f"topk:{number / 2000}")
    assert _made.cache_info().currsize <= 256
