"""Which optimizer trains which weight of a model, with which flags, and what is refused before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from downpour.protos.errors import Unsupported
from downpour.protos.layout import UpdateFlags
from downpour.worker import script
from downpour.worker.fit.optimizer.build_weights import build_weights
from downpour.worker.fit.optimizer.distributed_optimizer import DistributedMixin, DistributedOptimizer
from downpour.worker.fit.optimizer.gradient_op import GradientOp
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers, model_optimizers

X = np.ones((8, 3), np.float32)


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import keras

    monkeypatch.setattr(script, "member", object())
    yield keras


def two_nets(keras: Any, step: Any) -> Any:
    """A model of two layers, `a` and `b`, with a train step of its own."""
    import tensorflow as tf

    class Two(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = keras.layers.Dense(1), keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.a(x) + self.b(x)

        def gradients(self, x: Any, weights: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self(x) ** 2)
            return tape.gradient(loss, weights)

        def train_step(self, data: Any) -> Any:
            step(self, data)
            return {}

    model = Two()
    model(X[:1])
    return model


def found_of(model: Any) -> ModelOptimizers:
    _, applied, _ = build_weights(model, X)
    return model_optimizers(model, applied)


@pytest.mark.parametrize("by", ["name", "variable"])
def test_weights_that_are_excluded_from_decay_are_flagged(keras: Any, by: str) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    adamw = keras.optimizers.AdamW()
    if by == "name":
        adamw.exclude_from_weight_decay(var_names=["bias", "beta"])
    else:
        adamw.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if v.name in ("bias", "beta")])
    op = GradientOp(model, ModelOptimizers([adamw]), None)  # type: ignore[arg-type]
    decays = {tensor.name.split("/")[-1]: tensor.flags.decays for tensor in op.layout.trained_tensors}
    assert decays == {"kernel": True, "bias": False, "gamma": True, "beta": False}


def test_without_a_decay_no_weight_is_flagged(keras: Any) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    adam = keras.optimizers.Adam()
    adam.exclude_from_weight_decay(var_names=["bias"])
    op = GradientOp(model, ModelOptimizers([adam]), None)  # type: ignore[arg-type]
    assert {tensor.flags for tensor in op.layout.trained_tensors} == {UpdateFlags()}


@pytest.mark.parametrize("wrapped", ["both", "first", "second"])
@pytest.mark.parametrize("eagerly", [False, True])
def test_each_weight_belongs_to_the_optimizer_that_the_train_step_applies_to_it(
    keras: Any, wrapped: str, eagerly: bool
) -> None:
    def step(model: Any, data: Any) -> None:
        for optimizer, net in ((model.optimizer, model.a), (model.other, model.b)):
            optimizer.apply(model.gradients(data, net.trainable_weights), net.trainable_weights)

    model = two_nets(keras, step)
    first, second = keras.optimizers.Adam(), keras.optimizers.SGD(0.1)
    model.other = DistributedOptimizer(second) if wrapped != "first" else second
    model.compile(DistributedOptimizer(first) if wrapped != "second" else first, run_eagerly=eagerly)
    before = model.get_weights()
    optimizers = found_of(model)
    assert {id(each) for each in optimizers.optimizers} == {id(first), id(second)}
    assert all(isinstance(each, DistributedMixin) for each in optimizers.optimizers)
    owners = [optimizers.optimizers[optimizers.owner_of(v)] for v in model.trainable_variables]
    assert [owner is second for owner in owners] == [False, False, True, True]
    assert [spec.name for spec in optimizers.specs(5)] == [
        "adam" if m is first else "sgd" for m in optimizers.optimizers
    ]
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert int(first.iterations) == int(second.iterations) == 0


def test_an_optimizer_that_the_train_step_does_not_apply_is_none_of_the_job(keras: Any) -> None:
    """A model that is compiled without an optimizer has one of Keras's own."""

    def step(model: Any, data: Any) -> None:
        model.other.apply(model.gradients(data, model.trainable_weights), model.trainable_weights)

    model = two_nets(keras, step)
    model.other = DistributedOptimizer(keras.optimizers.SGD())
    model.compile()
    assert found_of(model).optimizers == [model.other]


def test_variables_outside_of_the_model_are_trained_as_well(keras: Any) -> None:
    def step(model: Any, data: Any) -> None:
        model.optimizer.apply(model.gradients(data, model.a.trainable_weights), model.a.trainable_weights)
        temperature_optimizer.apply([keras.ops.ones(())], [temperature])

    temperature, temperature_optimizer = keras.Variable(1.0, name="temperature"), keras.optimizers.SGD()
    model = two_nets(keras, step)
    model.compile(DistributedOptimizer(keras.optimizers.Adam()))
    optimizers = found_of(model)
    assert optimizers.extra == [temperature] and optimizers.owner_of(temperature) == 1
    assert float(temperature.numpy()) == 1.0


def test_a_weight_that_two_optimizers_train_is_refused_by_name(keras: Any) -> None:
    def step(model: Any, data: Any) -> None:
        model.optimizer.apply(model.gradients(data, model.trainable_weights), model.trainable_weights)
        model.other.apply(model.gradients(data, [model.a.kernel]), [model.a.kernel])

    model = two_nets(keras, step)
    model.other = keras.optimizers.SGD(name="second")
    model.compile(DistributedOptimizer(keras.optimizers.Adam(name="first")))
    with pytest.raises(Unsupported, match="kernel, which first and second are applied to"):
        found_of(model)


def test_a_second_optimizer_that_the_servers_do_not_implement_is_refused(keras: Any) -> None:
    def step(model: Any, data: Any) -> None:
        model.optimizer.apply(model.gradients(data, [model.a.kernel]), [model.a.kernel])
        model.other.apply(model.gradients(data, [model.b.kernel]), [model.b.kernel])

    model = two_nets(keras, step)
    model.other = keras.optimizers.Lamb()
    model.compile(DistributedOptimizer(keras.optimizers.Adam()))
    with pytest.raises(Unsupported, match="Lamb"):
        found_of(model)


def test_a_plain_optimizer_that_appears_later_is_refused_by_name(keras: Any) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    optimizers = ModelOptimizers([DistributedOptimizer(keras.optimizers.SGD())])
    late = keras.optimizers.SGD(name="late")
    optimizers.refuse(late, [keras.Variable(1.0)], model.trainable_variables)
    with pytest.raises(Unsupported, match="the optimizer 'late', which was not among them"):
        optimizers.refuse(late, model.trainable_variables[:1], model.trainable_variables)
    with pytest.raises(Unsupported, match="late"):
        optimizers.index_of(late)


def test_slots_of_each_optimizer_go_to_the_servers_and_come_back(keras: Any) -> None:
    variables = [keras.Variable(np.zeros(2, np.float32), name=f"w{i}") for i in range(3)]
    adam, adagrad = keras.optimizers.Adam(), keras.optimizers.Adagrad(initial_accumulator_value=0.5)
    adam.build(variables[:1])
    members = [DistributedOptimizer(adam), DistributedOptimizer(adagrad)]
    optimizers = ModelOptimizers(members, {id(variables[1]): 1})
    optimizers.specs(1)
    vectors = optimizers.slot_vectors(variables)
    assert {name: vector.tolist() for name, vector in vectors.items()} == {
        "momentum": [0.0] * 6, "velocity": [0.0] * 6, "accumulator": [0, 0, 0.5, 0.5, 0, 0],
    }  # fmt: skip
    optimizers.keep(variables, lambda names: {name: np.arange(6, dtype=np.float32) for name in names})
    assert adagrad.kept_slots.get("accumulator", variables[1]).tolist() == [2, 3]
    assert adagrad.kept_slots.get("accumulator", variables[0]) is None
    assert adam.kept_slots.get("momentum", variables[2]).tolist() == [4, 5]
    frozen = ModelOptimizers(members, {id(variables[1]): 1})
    frozen.specs(1)
    frozen.keep(variables[:1], lambda names: {name: np.full(2, 9, np.float32) for name in names})
    assert adam.kept_slots.get("momentum", variables[0]).tolist() == [9, 9]
    assert adam.kept_slots.get("momentum", variables[2]).tolist() == [4, 5]
    assert frozen.slot_vectors(variables)["accumulator"].tolist() == [0, 0, 2, 3, 0, 0]


def test_an_argument_that_a_callback_has_set_within_fit_is_refused_by_name(keras: Any) -> None:
    optimizer = DistributedOptimizer(keras.optimizers.SGD(0.1, momentum=0.5))
    optimizers = ModelOptimizers([optimizer])
    optimizers.specs(10)
    optimizer.learning_rate = 0.2
    optimizers.check_arguments()
    optimizer.momentum = 0.75
    with pytest.raises(Unsupported, match=r"momentum = 0\.75, set within fit, 0\.5 before"):
        optimizers.check_arguments()


def test_a_train_step_that_xla_compiles_is_refused_before_the_first_step(keras: Any) -> None:
    import tensorflow as tf

    def step(model: Any, data: Any) -> None:
        @tf.function(jit_compile=True)
        def compiled() -> None:
            weights = model.a.trainable_variables
            model.optimizer.apply(model.gradients(data, weights), weights)

        compiled()

    model = two_nets(keras, step)
    model.compile(DistributedOptimizer(keras.optimizers.SGD(0.1)))
    with pytest.raises(Unsupported, match="jit_compile"):
        found_of(model)
