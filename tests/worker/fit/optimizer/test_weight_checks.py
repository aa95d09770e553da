"""Types of weights and strategies that the servers do not carry out are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from downpour.protos.errors import Unsupported
from downpour.worker.fit.optimizer.weight_checks import check_strategy, check_weights


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


def built(keras: Any, dtype: str) -> Any:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype=dtype), keras.layers.BatchNormalization()])


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_weights_of_other_types_are_refused_by_name(keras: Any, dtype: str) -> None:
    model = built(keras, dtype)
    with pytest.raises(Unsupported, match=f"kernel of type {dtype}. Use the dtype policy float32, or mixed_bfloat16"):
        check_weights(model.trainable_variables, model.non_trainable_variables)
    variable = keras.Variable([1.0], dtype=dtype, name="mean")
    with pytest.raises(Unsupported, match=f"mean of type {dtype}"):
        check_weights(built(keras, "float32").trainable_variables, [variable])


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_weights_of_float32_are_accepted_whatever_the_layer_computes_in(keras: Any, dtype: str) -> None:
    model = built(keras, dtype)
    check_weights(model.trainable_variables, model.non_trainable_variables)


def test_a_model_or_optimizer_of_a_strategy_is_refused(keras: Any) -> None:
    import tensorflow as tf

    optimizer = keras.optimizers.SGD()
    check_strategy(optimizer, "an optimizer")
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        for owner, what in ((keras.optimizers.SGD(), "an optimizer"), (keras.Sequential(), "a model")):
            with pytest.raises(Unsupported, match=f"{what} must not be made in the scope.*OneDeviceStrategy"):
                check_strategy(owner, what)
