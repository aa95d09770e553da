"""The arrays of a push: together they are the flat vector of the layout."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from downpour.protos.chunked_vector import ChunkedVector
from downpour.worker.fit.optimizer.step_tensors import LARGE, followed_by, in_chunks

SHAPES = [(3,), (2, 2), (LARGE,), (2, LARGE), (1,), (5,)]


@pytest.mark.parametrize(("together", "sizes"), [(False, [7, LARGE, 2 * LARGE, 6]), (True, [13 + 3 * LARGE])])
def test_chunks_hold_all_gradients_in_order(together: bool, sizes: list[int]) -> None:
    generator = np.random.default_rng(0)
    gradients = [generator.normal(size=shape).astype(np.float32) for shape in SHAPES]
    chunks = [chunk.numpy() for chunk in in_chunks([tf.constant(each) for each in gradients], together)]
    assert list(map(len, chunks)) == sizes
    np.testing.assert_array_equal(np.concatenate(chunks), np.concatenate([each.ravel() for each in gradients]))


@pytest.mark.parametrize("gradient", [np.ones(3, np.float32), ChunkedVector([np.ones(2, np.float32)] * 2)])
@pytest.mark.parametrize("state", [0, 2])
def test_differences_follow_a_gradient(gradient: np.ndarray | ChunkedVector, state: int) -> None:
    differences = np.full(state, 5, np.float32)
    joined = followed_by(gradient, differences)
    np.testing.assert_array_equal(joined[:], np.concatenate([gradient[:], differences]))
