"""An optimizer's slots go to the servers and come back, also when other variables are trained then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from downpour.worker.fit.optimizer.optimizer_slots import Slots, slots_of, write_derived

SHAPES = ((3, 2), (4,), (1, 2, 2))


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


def variables_of(keras: Any) -> list[Any]:
    return [keras.Variable(np.zeros(shape, np.float32), name=f"w{i}") for i, shape in enumerate(SHAPES)]


def used(keras: Any, optimizer: Any, variables: list[Any]) -> Any:
    rng = np.random.default_rng(1)
    for _ in range(3):
        optimizer.apply([keras.ops.convert_to_tensor(rng.normal(size=s).astype(np.float32)) for s in SHAPES], variables)
    return optimizer


def moments(optimizer: Any, variable: Any) -> list[np.ndarray]:
    """All slots of one variable, in the order in which the optimizer keeps them."""
    return [v.numpy() for v in optimizer.variables if variable.name in v.path]


CASES: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {}), ("Adam", {"amsgrad": True}), ("AdamW", {}), ("Adagrad", {}), ("RMSprop", {}),
    ("RMSprop", {"centered": True, "momentum": 0.9}), ("SGD", {"momentum": 0.9}), ("Nadam", {}), ("Adamax", {}),
    ("Adadelta", {}), ("Ftrl", {}), ("Lion", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_an_optimizer_with_the_slots_of_another_continues_like_it(
    keras: Any, name: str, arguments: dict[str, Any]
) -> None:
    variables = variables_of(keras)
    first = used(keras, getattr(keras.optimizers, name)(0.1, **arguments), variables)
    second = getattr(keras.optimizers, name)(0.1, **arguments)
    second.build(variables)
    slots = slots_of(first)
    assert slots is not None and all(vector.shape == (14,) for vector in slots.vectors.values())
    assert all(vector.any() for vector in slots.vectors.values())
    slots.write(second)
    second._iterations.assign(first._iterations)
    write_derived(second)
    assert len(second.variables) == len(first.variables)
    for ours, theirs in zip(second.variables, first.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)


def test_variables_are_distinguished_by_identity(keras: Any) -> None:
    """After a layer is frozen or unfrozen, a slot belongs to the variable that it was read from."""
    variables = variables_of(keras)
    first = used(keras, keras.optimizers.Adam(), variables)
    slots = slots_of(first)
    added = keras.Variable(np.zeros(5, np.float32), name="added")
    second = keras.optimizers.Adam()
    second.build([variables[2], added, variables[0]])
    assert slots is not None
    slots.write(second)
    for variable in (variables[0], variables[2]):
        for ours, theirs in zip(moments(second, variable), moments(first, variable), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert not any(moment.any() for moment in moments(second, added))


def test_slots_are_found_by_their_variable_in_any_order(keras: Any) -> None:
    variables = variables_of(keras)
    slots = slots_of(used(keras, keras.optimizers.Adam(), variables))
    assert slots is not None
    whole = [slots.get("momentum", variable) for variable in variables]
    np.testing.assert_array_equal(np.concatenate([v for v in whole if v is not None]), slots.vectors["momentum"])
    assert slots.get("momentum", variables_of(keras)[0]) is None and slots.get("other", variables[0]) is None
    some = slots.of([False, True, True])
    assert some.get("momentum", variables[0]) is None
    np.testing.assert_array_equal(some.get("momentum", variables[1]), whole[1])


def test_slots_of_variables_that_are_frozen_are_kept_beside_newer_ones(keras: Any) -> None:
    variables = variables_of(keras)
    slots = slots_of(used(keras, keras.optimizers.Adam(), variables))
    assert slots is not None
    newer = Slots(variables[1:2], {name: np.full(4, 7.0, np.float32) for name in slots.vectors})
    both = slots.updated(newer)
    for name in slots.vectors:
        np.testing.assert_array_equal(both.get(name, variables[0]), slots.get(name, variables[0]))
        np.testing.assert_array_equal(both.get(name, variables[1]), np.full(4, 7.0))
        np.testing.assert_array_equal(both.get(name, variables[2]), slots.get(name, variables[2]))


def test_an_optimizer_without_slots_has_none(keras: Any) -> None:
    assert slots_of(keras.optimizers.Adam()) is None  # not built
    assert slots_of(used(keras, keras.optimizers.SGD(), variables_of(keras))) is None
    momentum = slots_of(used(keras, keras.optimizers.SGD(momentum=0.9), variables_of(keras)))
    assert isinstance(momentum, Slots) and set(momentum.vectors) == {"momentum"}
