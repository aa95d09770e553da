"""Vectors that TensorFlow reads in place, with one copy or, in mapped memory, none."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from downpour.protos.shared_memory import memfd
from downpour.worker.catalog.models import build
from downpour.worker.compute.flat_model import FlatModel, layout_of
from downpour.worker.compute.zero_copy import Input
from tests.support.cluster import running, vector_layout

SIZE = 1000
Memory = tuple[list[np.ndarray], list[np.ndarray]]


@pytest.fixture
def memory() -> Memory:
    """Two vectors `float32[SIZE]` on pages of their own, and the same memory as a worker maps it."""
    stride = mmap.ALLOCATIONGRANULARITY
    descriptor = memfd.create("downpour-test", 2 * stride)
    written = mmap.mmap(descriptor, 2 * stride)
    mapped = memoryview(mmap.mmap(descriptor, 2 * stride, mmap.MAP_SHARED, mmap.PROT_READ))
    vectors = [np.frombuffer(written, np.float32, SIZE, at) for at in (0, stride)]
    seen = [np.frombuffer(mapped[at : at + 4 * SIZE], np.float32) for at in (0, stride)]
    return vectors, seen


def test_mapped_memory_is_not_copied(memory: Memory) -> None:
    (first, second), (seen, other) = memory
    argument = Input((SIZE,))
    first[:], second[:] = 1, 2
    tensor, another = argument.filled(seen), argument.filled(other)
    assert (tensor.numpy() == 1).all() and (another.numpy() == 2).all()
    first[:] = 3
    assert (tensor.numpy() == 3).all() and (argument.array == 0).all()
    assert argument.filled(seen) is tensor


def test_a_tensor_of_mapped_memory_outlives_the_vector(memory: Memory) -> None:
    (first, _), seen = memory
    argument = Input((SIZE,))
    first[:] = 5
    tensor = argument.filled(seen.pop(0))
    seen.clear()
    assert (tensor.numpy() == 5).all()


def test_anything_else_is_copied_into_the_same_tensor() -> None:
    argument = Input((SIZE,))
    for value in (1, 2):
        vector = np.full(SIZE, value, np.float32)
        tensor = argument.filled(vector)
        vector[:] = 0
        assert tensor is argument.tensor and (tensor.numpy() == value).all()


def test_mapped_memory_of_another_type_or_place_is_copied() -> None:
    content = mmap.mmap(-1, 8 * SIZE + 64)
    for vector in (
        np.frombuffer(memoryview(content)[4 : 4 + 4 * SIZE], np.float32),
        np.frombuffer(memoryview(content)[: 4 * SIZE], np.int32).astype(np.float32),
    ):
        argument = Input((SIZE,))
        assert argument.filled(vector) is argument.tensor


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must have the shape \(1000,\); received \(3,\)"):
        Input((SIZE,)).filled(np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("transport", "shards", "size"), [("shm", 1, SIZE), ("shm", 2, SIZE), ("tcp", 1, SIZE), ("grpc", 1, 1 << 19)]
)
def test_weights_in_shared_memory_or_put_together_are_read_where_they_are(
    tmp_path: Path, transport: str, shards: int, size: int
) -> None:
    with running(tmp_path, shards, workers=1, learning_rate=1) as cluster:
        (member,) = cluster.train(vector_layout(size), 1, transport=transport)
        flat = member.push_pull(np.ones(size, np.float32)).flat
        tensor = Input((size,)).filled(flat)
        assert np.asarray(memoryview(tensor)).ctypes.data == flat.ctypes.data
        assert (tensor.numpy() == -1).all()


def test_tensors_at_multiples_of_64_bytes_are_read_where_the_vector_lies() -> None:
    model = build("cnn", (28, 28), 10)
    flat = Input((layout_of(model).size,))
    begin = flat.array.ctypes.data
    largest = max(FlatModel(model).pieces(flat.tensor)[0], key=lambda tensor: int(tf.size(tensor)))
    address = np.asarray(memoryview(largest)).ctypes.data
    assert begin <= address < begin + flat.array.nbytes, "the weights of the large layer must not have been copied"
