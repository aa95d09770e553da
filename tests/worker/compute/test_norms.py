"""Norms beyond the range of squares in float32: a gradient is finite exactly if its elements are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from downpour.worker.compute.gradient import Gradient
from downpour.worker.compute.norms import LARGEST, clip_together, exact_norm_of

HUGE = [np.array([3e30, 0.0], np.float32), np.array([[4e30]], np.float32)]


@pytest.mark.parametrize("traced", [False, True])
def test_a_norm_is_finite_exactly_if_the_elements_are(traced: bool) -> None:
    norm = tf.function(exact_norm_of) if traced else exact_norm_of
    assert float(norm([tf.constant(each) for each in HUGE])) == pytest.approx(5e30)
    assert float(norm([tf.fill([100], LARGEST)])) == pytest.approx(LARGEST)
    assert float(norm([tf.constant([3.0, 4.0])])) == 5.0
    assert math.isinf(float(norm([tf.constant([math.inf, 1e30])])))
    assert math.isnan(float(norm([tf.constant([math.nan, 1e30])])))


@pytest.mark.parametrize("jit_compile", [None, True])
def test_clipping_keeps_the_direction_of_a_huge_gradient(jit_compile: bool | None) -> None:
    clipped = tf.function(lambda tensors: clip_together(tensors, 10.0), jit_compile=jit_compile)
    first, second = clipped([tf.constant(each) for each in HUGE])
    np.testing.assert_allclose(first, [6.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(second, [[8.0]], rtol=1e-6)


def test_a_gradient_whose_squares_exceed_float32_is_finite() -> None:
    numbers = [2.0, 1.0, math.inf]  # loss, correct, and the norm in float32
    found = Gradient.of([tf.constant([3e30, 4e30, 7.0, *numbers])], tf.zeros([3]), trained=2)
    assert found.finite and found.norm == pytest.approx(5e30)
    assert not Gradient.of([tf.constant([3e30, math.inf, 7.0, *numbers])], tf.zeros([3]), trained=2).finite
