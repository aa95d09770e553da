"""The train function is kept between calls of `fit` until Keras or the script replaces what it depends on."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.fit.optimizer.gradient_op import GradientOp
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers
from downpour.worker.fit.optimizer.train_function import TrainFunction, train_function_of
from downpour.worker.fit.process.randomness import Randomness


class Echo:
    """A worker whose servers return the weights that they have been given."""

    versions, nonfinite_limit, pushed = (0,), 10, 0

    def __init__(self, flat: np.ndarray) -> None:
        self.flat = flat

    def push_pull(self, gradient: np.ndarray, info: PushInfo) -> np.ndarray:
        self.pushed += 1
        return self.flat


@pytest.fixture
def model() -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    return model


def _op(model: Any, worker: Any) -> GradientOp:
    return GradientOp(model, ModelOptimizers([model.optimizer]), worker)


def _fit(model: Any, worker: Any, leased: bool = False) -> tuple[TrainFunction, GradientOp]:
    function = train_function_of(model, leased)
    function.enter()
    model.make_train_function()
    op = function.begin(_op(model, worker))
    function.leave()
    return function, op


def test_a_second_call_has_the_same_function_and_exchange(model: Any) -> None:
    worker = Echo(np.zeros(9, np.float32))
    function, op = _fit(model, worker)
    vars(op).update(error=ValueError(), steps=5)
    kept = function._function
    assert _fit(model, worker) == (function, op)
    assert function._function is kept
    assert op.error is None
    assert not op.steps


def _compile(model: Any) -> None:
    model.compile(model.optimizer, "mse", jit_compile=False)


def _assign(name: str, value: Any) -> Any:
    return lambda model: setattr(model, name, value)


@pytest.mark.parametrize(
    "change",
    [_compile, _assign("run_eagerly", True), _assign("steps_per_execution", 2), _assign("train_step", lambda data: {})],
)
def test_another_function_is_built_after_a_change_of_the_model(model: Any, change: Any) -> None:
    worker = Echo(np.zeros(9, np.float32))
    function, _ = _fit(model, worker)
    change(model)
    assert _fit(model, worker)[0] is not function


def test_leased_batches_have_a_function_of_their_own(model: Any) -> None:
    worker = Echo(np.zeros(9, np.float32))
    assert _fit(model, worker)[0] is not _fit(model, worker, leased=True)[0]


def _freeze(model: Any) -> None:
    model.layers[0].trainable = False


@pytest.mark.parametrize("change", [_freeze, _assign("optimizer", keras.optimizers.Adam())])
def test_another_exchange_is_built_after_a_change_of_what_is_trained(model: Any, change: Any) -> None:
    worker = Echo(np.zeros(9, np.float32))
    function, op = _fit(model, worker)
    kept = function._function
    change(model)
    again, other = _fit(model, worker)
    assert again is function
    assert other is not op
    assert function._function is not kept


def test_outside_of_fit_the_function_is_keras_s_own(model: Any) -> None:
    worker = Echo(np.zeros(9, np.float32))
    function, _ = _fit(model, worker)
    model.train_on_batch(np.ones((2, 2)), np.ones((2, 1)))
    assert model.train_function is not function
    assert worker.pushed == 0


def test_a_traced_function_draws_other_random_numbers_in_every_call_of_fit() -> None:
    import tensorflow as tf

    randomness = Randomness(1, 0, 1, "job")

    @tf.function
    def draw() -> Any:
        return tf.random.uniform(())

    with randomness.of_fit(1):
        first = [float(draw()) for _ in range(3)]
    with randomness.of_fit(2):
        second = [float(draw()) for _ in range(3)]
    assert not set(first) & set(second)
