"""The description of a push for the servers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.fit.cluster.leases import Span
from downpour.worker.fit.optimizer.gradient_op import GradientOp
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers


class OneReply:
    """A worker whose servers return the weights that they have been given."""

    versions, nonfinite_limit, clip_norm, outdated = (0,), 10, 0.0, False

    def __init__(self, flat: np.ndarray) -> None:
        self.flat = flat
        self.pushed: list[PushInfo] = []

    def push_pull(self, gradient: np.ndarray, info: PushInfo) -> np.ndarray:
        self.pushed.append(info)
        return self.flat


@pytest.mark.parametrize("value", [1.0, np.nan, np.inf])
def test_a_push_is_finite_only_if_the_moving_statistics_are(value: float) -> None:
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, use_bias=False), keras.layers.BatchNormalization()]
    )
    model.compile("sgd", "mse")
    worker: Any = OneReply(np.zeros(12, np.float32))
    op = GradientOp(model, ModelOptimizers([model.optimizer]), worker)
    op.write(op.read())
    state = np.full(4, value, np.float32)
    op._push_pull(b"", False, np.ones(8, np.float32), state, 1.0, 0.5, 2, np.zeros(len(Span._fields), np.int64))
    (info,) = worker.pushed
    assert info.finite == bool(np.isfinite(value))


@pytest.mark.parametrize(("value", "norm"), [(4e30, 5e30), (np.inf, np.inf)])
def test_a_push_whose_squares_exceed_float32_is_finite(value: float, norm: float) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    worker: Any = OneReply(np.zeros(2, np.float32))
    op = GradientOp(model, ModelOptimizers([model.optimizer]), worker)
    op.write(op.read())
    none, span = np.zeros(0, np.float32), np.zeros(len(Span._fields), np.int64)
    op._push_pull(b"", False, np.array([3e30, value], np.float32), none, np.inf, 0.5, 2, span)
    assert worker.pushed[0].norm == pytest.approx(norm)
