"""Types of weights and strategies that the servers do not carry out are refused by name."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from downpour.protos.errors import Unsupported
from downpour.worker.fit.optimizer.weight_checks import check_weights
from tests.support.paths import ROOT


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


OF_A_STRATEGY = """
import keras, tensorflow as tf
from downpour.protos.errors import Unsupported
from downpour.worker.fit.optimizer.weight_checks import check_strategy
check_strategy(keras.optimizers.SGD(), "an optimizer")
with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
    for owner, what in ((keras.optimizers.SGD(), "an optimizer"), (keras.Sequential(), "a model")):
        try:
            check_strategy(owner, what)
        except Unsupported as error:
            assert f"{what} must not be made in the scope" in str(error) and "OneDeviceStrategy" in str(error), error
        else:
            raise AssertionError(what)
"""


def test_a_model_or_optimizer_of_a_strategy_is_refused() -> None:
    """A scope of TensorFlow is a state of the process, which other tests must not have."""
    subprocess.run([sys.executable, "-c", OF_A_STRATEGY], cwd=ROOT, check=True, timeout=120)
