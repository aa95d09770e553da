"""Constraints on the weights of a shard: equal to Keras's, applied to the tensors of a push alone, and never cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from downpour.protos.errors import InvalidRequest
from downpour.protos.layout import Constraint, Layout, Tensor, UpdateFlags
from downpour.ps.core.rules.constraints import check_constraint, constrain
from downpour.ps.core.tensor_optimizer import OptimizerSpec, TensorOptimizer

SHAPE = (3, 4)
EPSILON = 1e-7
MAX_NORM = Constraint("MaxNorm", (0,), (0.5, EPSILON))


def cases(keras: Any) -> list[tuple[Any, Constraint]]:
    each = keras.constraints
    return [
        (each.MaxNorm(0.7, axis=0), Constraint("MaxNorm", (0,), (0.7, EPSILON))),
        (each.MaxNorm(0.7, axis=[0, 1]), Constraint("MaxNorm", (0, 1), (0.7, EPSILON))),
        (each.MinMaxNorm(0.5, 0.9, 0.3, axis=1), Constraint("MinMaxNorm", (1,), (0.5, 0.9, 0.3, EPSILON))),
        (each.UnitNorm(axis=1), Constraint("UnitNorm", (1,), (EPSILON,))),
        (each.NonNeg(), Constraint("NonNeg")),
    ]


def test_constraints_equal_those_of_keras() -> None:
    keras = pytest.importorskip("keras")
    weights = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    for of_keras, ours in cases(keras):
        check_constraint(ours)
        np.testing.assert_allclose(constrain(ours, weights), np.asarray(of_keras(weights)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "wrong", [Constraint("Own"), Constraint("MaxNorm", (0,), (1.0,)), Constraint("UnitNorm", (0,))]
)
def test_constraints_that_are_not_known_are_refused(wrong: Constraint) -> None:
    with pytest.raises(InvalidRequest, match="a constraint must be one of MaxNorm"):
        check_constraint(wrong)


def layout() -> Layout:
    constrained = UpdateFlags(constraint=MAX_NORM)
    return Layout((Tensor("a", (5,)), Tensor("b", SHAPE, flags=constrained), Tensor("c", SHAPE, flags=constrained)))


def test_a_message_carries_constraints() -> None:
    assert Layout.from_proto(layout().to_proto()) == layout()


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_tensor_with_an_axis_lies_on_one_shard(shards: int) -> None:
    parts = layout().cut(shards)
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert parts[0].start == 0 and parts[-1].stop == layout().trained
    assert all(part.start in (0, 5, 17) for part in parts)


def test_more_shards_than_such_tensors_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="constraint has an axis must be on one shard; received 6 shards"):
        layout().cut(6)


@pytest.mark.parametrize("shards", [1, 2])
def test_an_update_constrains_the_tensors_that_it_covers_and_no_others(shards: int) -> None:
    weights = np.random.default_rng(1).normal(size=layout().trained).astype(np.float32)
    gradient = np.ones_like(weights)
    expected = weights.copy()
    expected[:17] -= np.float32(0.1)
    expected[5:17] = constrain(MAX_NORM, expected[5:17].reshape(SHAPE)).ravel()
    found = np.empty_like(weights)
    for part in layout().cut(shards):
        optimizer = TensorOptimizer([OptimizerSpec("sgd", {"learning_rate": 0.1})], layout(), part)
        assert optimizer.whole is not None
        coverage = optimizer.coverage(bytes([0b011])).in_place
        place = slice(part.start, part.stop)
        if coverage.ranges:
            optimizer.advance_covered(weights[place], gradient[place], found[place], coverage, {0: 0.1}, {0: None})
        else:
            found[place] = weights[place]
    np.testing.assert_array_equal(found, expected)
