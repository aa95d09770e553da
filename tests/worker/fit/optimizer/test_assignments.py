"""The variables that a train step assigns are found when it is traced, and integers are summed over the workers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from downpour.worker.fit.optimizer.assignments import recorded_assignments
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
