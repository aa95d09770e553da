"""The variables that a train step assigns are found when it is traced, and integers are summed over the workers."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from downpour import DistributedOptimizer
from downpour.worker.fit.optimizer.assignments import recorded_assignments
from downpour.worker.fit.optimizer.build_weights import build_weights
from downpour.worker.fit.other_variables import OtherVariables


@pytest.mark.parametrize("how", ["assign", "assign_add", "assign_sub", "raw", "in_a_branch"])
def test_an_assignment_is_recorded_while_a_function_is_traced(how: str) -> None:
    changed, other = keras.Variable(np.zeros(3, np.float32)), keras.Variable(np.zeros(3, np.float32))

    def step(x: Any) -> Any:
        if how == "raw":
            changed.value.assign_add(tf.ones(3))
        elif how == "in_a_branch":
            tf.cond(x > 0, lambda: changed.assign(tf.ones(3)), lambda: tf.zeros(3))
        else:
            getattr(changed, how)(np.ones(3, np.float32))
        return x + tf.reduce_sum(other.value)

    with recorded_assignments() as assigned:
        tf.function(step).get_concrete_function(tf.TensorSpec([], tf.float32))
    assert changed in assigned and other not in assigned
    with recorded_assignments() as later:
        pass
    changed.assign(np.ones(3, np.float32))
    assert changed not in later


def test_an_eager_assignment_can_be_undone() -> None:
    changed = keras.Variable(np.arange(3, dtype=np.float32))
    with recorded_assignments() as assigned:
        changed.assign_add(np.ones(3, np.float32))
        with assigned.paused():
            changed.assign_add(np.ones(3, np.float32))
    assigned.undo()
    assert changed.numpy().tolist() == [0.0, 1.0, 2.0]


class Kinds(keras.layers.Layer):
    def build(self, shape: Any) -> None:
        self.count = self.add_weight(shape=(2,), initializer="ones", dtype="int32", trainable=False)
        self.place = self.add_weight(shape=(), initializer="zeros", dtype="int64", trainable=False)
        self.flag = self.add_weight(shape=(), initializer="zeros", dtype="bool", trainable=False)

    def call(self, inputs: Any) -> Any:
        return inputs


def test_counts_are_summed_and_everything_else_is_that_of_worker_0() -> None:
    models = [keras.Sequential([keras.Input((1,)), Kinds()]) for _ in range(2)]
    others = []
    for model in models:
        with recorded_assignments() as assigned:
            model.layers[0].count.assign_add([0, 0])
            model.layers[0].place.assign_add(0)
        others.append(OtherVariables(model, assigned))
        others[-1].begin_epoch()
    for worker, model in enumerate(models):
        model.layers[0].count.assign_add([1, 10 * worker])
        model.layers[0].place.assign(3 - 5 * worker)  # it is no count: it decreases on a worker
        model.layers[0].flag.assign(worker == 0)
    sums = np.sum([each.added() for each in others], axis=0).tolist()
    assert len(sums) == others[0].size
    for each in others:
        each.add_all(sums)
    others[1].decode(others[0].encode())
    for model in models:
        layer = model.layers[0]
        assert layer.count.numpy().tolist() == [3, 11]
        assert int(layer.place.numpy()) == 3 and bool(layer.flag.numpy())


class Adding(keras.Model):
    """Applies its optimizer in every third batch, in one of several ways to add up gradients."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.dense = keras.layers.Dense(1)
        self.statistics = keras.layers.BatchNormalization()
        self.seen = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)
        kind = tf.Variable if how == "not_tracked" else keras.Variable
        self.sums = [kind(np.zeros(shape, np.float32), trainable=False) for shape in ((3, 1), (1,))]

    def call(self, inputs: Any) -> Any:
        return self.dense(self.statistics(inputs, training=True))

    def train_step(self, data: Any) -> Any:
        sums = self.sums
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(data[0]) - data[1]) ** 2)
        gradients = tape.gradient(loss, self.dense.trainable_weights)
        self.seen.assign_add(1)
        if self.how == "without":
            tf.cond(self.seen.value % 3 == 0, lambda: self.apply(gradients), lambda: 0)
            return {"loss": loss}
        if self.how == "always":
            self.apply(gradients)
        first, last = self.seen.value % 3 == 1, self.seen.value % 3 == 0
        for each, gradient in zip(sums, gradients, strict=True):
            if self.how == "first_replaces":
                tf.cond(first, partial(each.assign, gradient), partial(each.assign_add, gradient))
            else:
                each.assign_add(gradient)
        if self.how != "always":
            tf.cond(last, lambda: self.apply(sums, self.how != "first_replaces"), lambda: 0)
        return {"loss": loss}

    def apply(self, gradients: Any, resets: bool = False) -> int:
        self.optimizer.apply([tf.identity(each) for each in gradients], self.dense.trainable_weights)
        return len([each.assign(tf.zeros_like(each)) for each in gradients if resets])


@pytest.mark.parametrize("how", ["reset", "first_replaces", "not_tracked", "without", "always"])
def test_the_sums_of_gradients_until_an_update_are_found(how: str) -> None:
    """What a train step adds up, and the counter that decides on the update, belong to the worker."""
    model, x = Adding(how), np.ones((4, 3), np.float32)
    model.compile(DistributedOptimizer(keras.optimizers.SGD(0.1)))
    model(x)
    _, _, assigned = build_weights(model, x, x[:, :1])
    assert assigned is not None
    adds = how not in ("without", "always")
    assert assigned.pushes_conditionally == (how != "always") and assigned.has_sums == adds
    found = [assigned.is_sum(each) for each in model.sums]
    assert found == [adds, adds]
    assert not any(assigned.is_sum(each) for each in (*model.statistics.variables, *model.dense.variables, model.seen))


def test_a_counter_that_decides_on_updates_is_a_workers_own_until_fit_ends() -> None:
    models = [keras.Sequential([keras.Input((1,)), Kinds()]) for _ in range(2)]
    found = []
    for model in models:
        total = tf.Variable(0.0)
        with recorded_assignments() as assigned:
            for variable in (model.layers[0].count, model.layers[0].place, total):
                variable.assign_add(tf.zeros(variable.shape, variable.dtype))
        assigned.find_sums([(object(),)], model.variables)
        found.append(assigned)

    def fit(added: tuple[int, int]) -> list[int]:
        others = [OtherVariables(model, assigned) for model, assigned in zip(models, found, strict=True)]
        for _ in range(2):
            for each in others:
                each.begin_epoch()
            for model, count in zip(models, added, strict=True):
                model.layers[0].place.assign_add(count)
            sums = np.sum([each.added() for each in others], axis=0)
            for each in others:
                each.add_all(sums.tolist())
                assert not each.decode(others[0].encode())
        during = [int(model.layers[0].place) for model in models]
        for each in others:
            each.end()
        return during

    assert fit((1, 4)) == [2, 8]
    assert [int(model.layers[0].place) for model in models] == [10, 10]
    assert fit((3, 0)) == [8, 8], "another call of fit continues each worker's own"
    assert [int(model.layers[0].place) for model in models] == [16, 16]
    models[0].layers[0].place.assign(0)  # by the script
    models[1].layers[0].place.assign(0)
    assert fit((1, 1)) == [2, 2]
