"""A distributed optimizer handles missing gradients as Keras does, and is saved as an optimizer of plain Keras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import pytest

from downpour.protos.errors import Unsupported
from downpour.worker import script
from downpour.worker.fit.optimizer.distributed_optimizer import DistributedOptimizer, set_gradient_op
from downpour.worker.fit.optimizer.whole_state import as_plain, loading


class RecordedGradients:
    """Records the variables that a step is given gradients of."""

    def __init__(self) -> None:
        self.steps: list[set[int]] = []

    def set_loss(self, loss: Any) -> None:
        pass

    def local_step(self, optimizer: Any, gradients: Any, variables: Any) -> bool:
        return False

    def step(self, optimizer: Any, gradients: Mapping[int, Any]) -> None:
        self.steps.append(set(gradients))


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import keras

    monkeypatch.setattr(script, "member", object())
    yield keras


def variables_of(keras: Any) -> list[Any]:
    return [keras.Variable(np.ones(2, np.float32), name=name) for name in ("kernel", "bias")]


def test_a_step_without_any_gradient_is_the_error_of_keras(keras: Any) -> None:
    variables, recorded = variables_of(keras), RecordedGradients()
    optimizer = DistributedOptimizer(keras.optimizers.SGD())
    set_gradient_op(optimizer, cast(Any, recorded))
    for plain in (keras.optimizers.SGD(), optimizer):
        with pytest.raises(ValueError, match="No gradients provided for any variable"):
            plain.apply([None, None], variables)
    fresh = DistributedOptimizer(keras.optimizers.SGD())
    set_gradient_op(fresh, cast(Any, recorded))
    with pytest.raises(ValueError, match="must be built on a list of variables"):
        fresh.apply([keras.ops.ones(2)])
    assert not recorded.steps and int(optimizer.iterations) == 0


def test_variables_without_a_gradient_are_left_out_with_the_warning_of_keras(keras: Any) -> None:
    variables, recorded = variables_of(keras), RecordedGradients()
    optimizer = DistributedOptimizer(keras.optimizers.SGD())
    set_gradient_op(optimizer, cast(Any, recorded))
    with pytest.warns(UserWarning, match="Gradients do not exist for variables"):
        optimizer.apply([keras.ops.ones(2), None], variables)
    assert recorded.steps == [{id(variables[0])}]
    optimizer.apply([], variables)  # which Keras ignores
    assert int(optimizer.iterations) == 1


@pytest.mark.parametrize("inner", [True, False])
def test_a_function_that_xla_compiles_is_refused_when_it_is_traced(keras: Any, inner: bool) -> None:
    import tensorflow as tf

    variables, recorded = variables_of(keras), RecordedGradients()
    optimizer = DistributedOptimizer(keras.optimizers.SGD())
    set_gradient_op(optimizer, cast(Any, recorded))

    def step() -> None:
        optimizer.apply([keras.ops.ones(2), keras.ops.ones(2)], variables)

    tf.function(step)()
    step()
    assert len(recorded.steps) == 2
    with pytest.raises(Unsupported, match="jit_compile"):
        tf.function(tf.function(step) if inner else step, jit_compile=True)()


@pytest.mark.parametrize("name", ["Nadam", "Adamax", "Ftrl"])
def test_an_optimizer_is_saved_with_the_variables_of_plain_keras(keras: Any, name: str) -> None:
    variables = variables_of(keras)
    kind = getattr(keras.optimizers, name)
    plain = kind(0.1)
    gradients = [keras.ops.convert_to_tensor(np.array([0.5, -2.0], np.float32))] * 2
    for _ in range(3):
        plain.apply(gradients, variables)
    expected: dict[str, np.ndarray] = {}
    plain.save_own_variables(expected)
    saved: dict[str, np.ndarray] = {}
    optimizer = DistributedOptimizer(plain)
    with as_plain(optimizer):
        assert type(optimizer) is kind
        optimizer.save_own_variables(saved)
    assert saved.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(saved[key], value, rtol=1e-6)


def test_an_optimizer_with_a_function_as_learning_rate_is_saved_without_a_rate(keras: Any) -> None:
    plain = keras.optimizers.Adam(lambda: 0.1)
    plain.build(variables_of(keras))
    count = len(plain.variables)
    optimizer, saved = DistributedOptimizer(plain), dict[str, np.ndarray]()
    with as_plain(optimizer):
        optimizer.save_own_variables(saved)
    assert len(saved) == count


def test_loading_restores_slots_and_the_number_of_updates(keras: Any) -> None:
    variables = variables_of(keras)
    plain = keras.optimizers.Adam(0.1)
    gradients = [keras.ops.convert_to_tensor(np.array([0.5, -2.0], np.float32))] * 2
    for _ in range(3):
        plain.apply(gradients, variables)
    saved: dict[str, np.ndarray] = {}
    plain.save_own_variables(saved)
    optimizer = DistributedOptimizer(keras.optimizers.Adam(0.5))
    optimizer.build(variables)
    with loading(optimizer):
        optimizer.load_own_variables(saved)
    assert int(optimizer.iterations) == 3 and float(optimizer.learning_rate.numpy()) == np.float32(0.1)
    again: dict[str, np.ndarray] = {}
    with as_plain(optimizer):
        optimizer.save_own_variables(again)
    assert saved.keys() == again.keys()
    for name, value in saved.items():
        np.testing.assert_array_equal(again[name], value)


def test_a_configuration_names_the_class_of_keras(keras: Any) -> None:
    optimizer = DistributedOptimizer(keras.optimizers.Adam(0.25))
    config = keras.saving.serialize_keras_object(optimizer)
    assert [config[key] for key in ("module", "class_name", "registered_name")] == ["keras.optimizers", "Adam", None]
    assert type(keras.saving.deserialize_keras_object(config)) is keras.optimizers.Adam


def test_averages_that_this_worker_has_not_kept_are_refused(keras: Any) -> None:
    optimizer = DistributedOptimizer(keras.optimizers.SGD(use_ema=True))
    optimizer.finalize_variable_values([])
    object.__setattr__(optimizer, "dropped", True)
    with pytest.raises(Unsupported, match="assigned on worker 0.*another worker"):
        optimizer.finalize_variable_values([])
