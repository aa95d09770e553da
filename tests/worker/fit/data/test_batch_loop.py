"""The train function that trains on several batches in a call does what Keras's own does, batch by batch."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from downpour.worker.fit.data import batch_loop
from downpour.worker.fit.data.batch_loop import BatchLoop

BATCHES = 7
X = np.random.default_rng(0).normal(size=(4 * BATCHES, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def long_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_loop, "CALL_S", 3600.0)  # on a loaded machine, a call would end early


def _model(kind: Any = keras.Sequential) -> Any:
    keras.utils.set_random_seed(0)
    model = kind([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), "mse", metrics=["mae"], jit_compile=False)
    return model


def _data(batches: int = BATCHES) -> Any:
    """Return an iterator of a dataset."""
    x = X[: 4 * batches]
    return iter(tf.data.Dataset.from_tensor_slices((x, x.sum(1, keepdims=True))).batch(4))


def _read(iterator: Any) -> int:
    """Return how many batches have been read from an iterator."""
    return BATCHES - sum(1 for _ in iterator)


def test_it_trains_like_keras_s_own_function() -> None:
    mine, own = _model(), _model()
    logs = BatchLoop(mine)(_data())
    own.make_train_function()
    iterator = _data()
    for _ in range(BATCHES):
        expected = own.train_function(iterator)
    assert {name: float(value) for name, value in logs.items()} == pytest.approx(
        {name: float(value) for name, value in expected.items()}
    )
    for one, other in zip(mine.get_weights(), own.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_train_step_is_traced_as_often_as_by_keras() -> None:
    traces: list[Any] = []

    class Traced(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            traces.append(self)
            return super().train_step(data)

    mine, own = _model(Traced), _model(Traced)
    loop = BatchLoop(mine)
    own.make_train_function()
    for single in (False, True, False):
        loop.single = single
        loop(_data())
        own.train_function(_data())
    assert traces.count(mine) == traces.count(own)


@pytest.mark.parametrize(
    ("remaining", "single", "count"),
    [(None, False, BATCHES), (3, False, 3), (BATCHES, False, BATCHES), (100, False, BATCHES), (None, True, 1)],
)
def test_a_call_reads_the_batches_that_it_trains_on_and_no_other(
    remaining: int | None, single: bool, count: int
) -> None:
    loop, data = BatchLoop(_model()), _data()
    loop.remaining, loop.single = remaining, single
    loop(data)
    assert (loop.ahead + 1, _read(data)) == (count, count)
    assert int(loop._model.optimizer.iterations) == count


def test_a_call_ends_after_a_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_loop, "CALL_S", 0.0)
    loop, data = BatchLoop(_model()), _data()
    loop(data)
    assert (loop.ahead, _read(data)) == (0, 1)


def test_a_call_ends_when_the_train_step_has_stopped_training() -> None:
    loop = BatchLoop(_model(), goes_on=itertools.chain([True, True], itertools.repeat(False)).__next__)
    data = _data()
    loop(data)
    assert (loop.ahead, _read(data)) == (2, 3)


def test_the_end_of_the_data_is_reported_by_the_next_call() -> None:
    loop, data = BatchLoop(_model()), _data(batches=2)
    loop(data)
    assert loop.ahead == 1
    with pytest.raises(tf.errors.OutOfRangeError):
        loop(data)
    assert loop.ahead == 0


def test_steps_of_the_last_call_are_left_out_for_its_iterator_alone() -> None:
    loop, data = BatchLoop(_model()), _data()
    loop.remaining = 3
    loop(data)
    other = object()
    steps = [(0, 0, other), *((step, step, data) for step in range(1, 5))]
    found = list(loop.following(iter(steps), lambda batch: 5 - batch))
    assert found == [(0, 0, other), (3, 3, data), (4, 4, data)]
    assert loop.remaining == 1


def test_an_epoch_that_was_stopped_leaves_nothing_out_of_the_next_one() -> None:
    loop, data = BatchLoop(_model()), _data()
    loop.remaining = 3
    loop(data)
    loop.begin_epoch()
    assert [begin for begin, _, _ in loop.following(iter([(0, 0, data)]), lambda batch: None)] == [0]


def test_a_batch_of_train_on_batch_is_trained_on_alone() -> None:
    model = _model()
    model.train_function = loop = BatchLoop(model)
    model.train_on_batch(X[:4], X[:4].sum(1, keepdims=True))
    assert loop.ahead == 0 and int(model.optimizer.iterations) == 1


class OwnFunction(keras.Sequential):
    """A model whose train function is its own."""

    def make_train_function(self, force: bool = False) -> Any:
        return super().make_train_function(force)


@pytest.mark.parametrize(
    ("kind", "compiled", "serves"),
    [
        (keras.Sequential, {}, True),
        (keras.Sequential, {"run_eagerly": True}, False),
        (keras.Sequential, {"steps_per_execution": 2}, False),
        (OwnFunction, {}, False),
    ],
)
def test_it_replaces_keras_s_function_of_one_step_alone(kind: Any, compiled: dict[str, Any], serves: bool) -> None:
    model = kind([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", **compiled)
    assert BatchLoop.serves(model) is serves
