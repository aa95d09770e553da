"""What the servers are sent of a Keras optimizer: the same updates, rates and slots, or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.schedules import check_rates
from downpour.worker.fit.optimizer import optimizer_spec
from downpour.worker.fit.optimizer.optimizer_checks import check_supported
from downpour.worker.fit.optimizer.optimizer_slots import slots_of
from downpour.worker.fit.optimizer.optimizer_spec import (
    LONGEST_TABLE,
    SUPPORTED,
    initial_slots,
    rates_of,
)
from downpour.worker.fit.optimizer.optimizer_spec import (
    optimizer_spec as spec_for,
)

STEPS = 6
SHAPES = ((3, 2), (4,))
ARGUMENTS: Sequence[tuple[str, dict[str, Any]]] = (
    ("SGD", {"learning_rate": 0.1}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.7, "nesterov": True}),
    ("Adagrad", {"learning_rate": 0.1}),
    ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.3, "epsilon": 1e-3}),
    ("RMSprop", {"learning_rate": 0.01}),
    ("RMSprop", {"learning_rate": 0.01, "rho": 0.7, "momentum": 0.5, "epsilon": 1e-3}),
    ("Adam", {"learning_rate": 0.01}),
    ("Adam", {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}),
    ("AdamW", {"learning_rate": 0.01, "beta_1": 0.8, "weight_decay": 0.1}),
    ("SGD", {"learning_rate": 0.1, "weight_decay": 0.1}),
    ("Adam", {"learning_rate": 0.01, "weight_decay": 0.1}),
    ("Adam", {"learning_rate": 0.01, "amsgrad": True}),
    ("AdamW", {"learning_rate": 0.01, "amsgrad": True}),
    ("RMSprop", {"learning_rate": 0.01, "centered": True}),
    ("RMSprop", {"learning_rate": 0.01, "centered": True, "momentum": 0.5, "weight_decay": 0.1}),
    ("Nadam", {"learning_rate": 0.01}),
    ("Nadam", {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}),
    ("Adamax", {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}),
    ("Adadelta", {"learning_rate": 1.0, "rho": 0.8, "epsilon": 1e-3}),
    ("Ftrl", {"learning_rate": 0.1, "l1_regularization_strength": 0.01, "learning_rate_power": -0.6}),
    ("Lion", {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.9}),
)
NAMES = [f"{kind}-{'-'.join(arguments)}" for kind, arguments in ARGUMENTS]


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


def spec_of(optimizer: Any, iteration: int = 0, steps: int = STEPS) -> pb.OptimizerSpec:
    return spec_for(optimizer, type(optimizer), iteration, steps)


def rate_at(rates: pb.LearningRates, updates: Any) -> np.ndarray:
    return np.interp(updates, rates.updates, rates.rates)


def test_every_supported_optimizer_is_tested() -> None:
    assert {kind for kind, _ in ARGUMENTS} == set(SUPPORTED)


@pytest.mark.parametrize(("kind", "arguments"), ARGUMENTS, ids=NAMES)
def test_the_servers_make_the_updates_and_slots_of_keras(keras: Any, kind: str, arguments: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    theirs = getattr(keras.optimizers, kind)(**arguments)
    check_supported(theirs)
    variables = [keras.Variable(rng.normal(size=shape).astype(np.float32)) for shape in SHAPES]
    flat = np.concatenate([v.numpy().ravel() for v in variables])
    spec = spec_of(theirs)
    ours = Optimizer(spec.name, Hyperparameters(**spec.hyperparameters), flat.size)
    for step in range(STEPS):
        gradients = [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]
        theirs.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
        out = np.empty_like(flat)
        rate = float(rate_at(spec.learning_rates, step))
        ours.apply(flat, np.concatenate([g.ravel() for g in gradients]), out, learning_rate=rate)
        flat = out
    np.testing.assert_allclose(flat, np.concatenate([v.numpy().ravel() for v in variables]), rtol=2e-5, atol=1e-6)
    slots = slots_of(theirs)
    vectors = {} if slots is None else slots.vectors
    assert set(vectors) == set(initial_slots(spec)) == set(ours.slots)
    for name, vector in vectors.items():
        np.testing.assert_allclose(ours.slots[name], vector, rtol=2e-5, atol=1e-6)


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "CosineDecay": lambda s: s.CosineDecay(0.1, 200, alpha=0.1, warmup_target=0.5, warmup_steps=20),
    "CosineDecayRestarts": lambda s: s.CosineDecayRestarts(0.1, 30),
    "ExponentialDecay": lambda s: s.ExponentialDecay(0.1, 10, 0.9, staircase=True),
    "InverseTimeDecay": lambda s: s.InverseTimeDecay(0.1, 10, 0.5),
    "PiecewiseConstantDecay": lambda s: s.PiecewiseConstantDecay([40, 100], [0.1, 0.01, 0.001]),
    "PolynomialDecay": lambda s: s.PolynomialDecay(0.1, 90, 0.001, power=2.0, cycle=True),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("iteration", "steps"), [(0, 300), (37, 120), (50, 1)])
def test_a_table_has_the_rate_of_every_update_to_come(keras: Any, name: str, iteration: int, steps: int) -> None:
    schedule = SCHEDULES[name](keras.optimizers.schedules)
    rates = rates_of(keras.optimizers.SGD(schedule), iteration, steps)
    check_rates(rates)
    ahead = np.arange(steps + 1)
    expected = [float(schedule(int(step))) for step in iteration + ahead]
    np.testing.assert_allclose(rate_at(rates, iteration + ahead), expected, rtol=1e-5)


def test_every_schedule_of_keras_is_tested(keras: Any) -> None:
    schedules = keras.optimizers.schedules
    known = {name for name in dir(schedules) if isinstance(getattr(schedules, name), type)}
    assert known - {"LearningRateSchedule"} == set(SCHEDULES)


def test_a_table_holds_only_the_ends_of_what_is_constant(keras: Any) -> None:
    schedule = SCHEDULES["PiecewiseConstantDecay"](keras.optimizers.schedules)
    rates = rates_of(keras.optimizers.SGD(schedule), 0, 10_000)
    assert len(rates.updates) == 6


def test_a_long_table_is_sampled(keras: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer_spec, "LONGEST_TABLE", 100)
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 2000, 0.5)  # a line: exact between its points
    rates = rates_of(keras.optimizers.SGD(schedule), 0, 1999)
    assert len(rates.updates) <= 102 < LONGEST_TABLE and rates.updates[-1] >= 1999
    ahead = np.arange(2000)
    np.testing.assert_allclose(rate_at(rates, ahead), 1.0 - ahead / 4000, rtol=1e-5)


def test_a_rate_that_is_a_number_holds_for_all_updates(keras: Any) -> None:
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.learning_rate = 0.25
    rates = rates_of(optimizer, 7, 100)
    assert (list(rates.updates), list(rates.rates)) == ([0], [0.25])


def test_the_base_rate_is_never_0(keras: Any) -> None:
    """No optimizer takes a rate of 0; a warm-up begins at 0, and a rate may be 0 throughout."""
    warm_up = keras.optimizers.schedules.CosineDecay(0.0, 10, warmup_target=0.2, warmup_steps=5)
    assert spec_of(keras.optimizers.SGD(warm_up)).hyperparameters["learning_rate"] == pytest.approx(0.2)
    assert spec_of(keras.optimizers.SGD(0.0)).hyperparameters["learning_rate"] == 1.0


def test_a_schedule_may_multiply_the_integer_count_of_updates(keras: Any) -> None:
    """Keras passes a schedule the variable that counts updates, which a float may multiply."""

    class Falling(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return 0.5 - step * 0.01

    optimizer = keras.optimizers.SGD(Falling())
    optimizer._iterations.assign(3)
    rates = rates_of(optimizer, 3, 20)
    np.testing.assert_allclose(rate_at(rates, 3 + np.arange(20)), 0.5 - 0.01 * np.arange(3, 23), rtol=1e-5)
    assert int(optimizer._iterations.numpy()) == 3


def test_a_schedule_that_only_runs_eagerly_is_evaluated_so(keras: Any) -> None:
    class Steps(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return {True: 0.1, False: 0.01}[int(step) < 5]

    rates = rates_of(keras.optimizers.SGD(Steps()), 0, 9)
    assert rate_at(rates, np.arange(9)) == pytest.approx([0.1] * 5 + [0.01] * 4)


def test_a_function_as_learning_rate_is_evaluated_at_each_update(keras: Any) -> None:
    optimizer: Any = keras.optimizers.SGD(lambda: keras.ops.where(optimizer.iterations < 10, 0.1, 0.0))
    rates = rates_of(optimizer, 0, 30)
    assert rate_at(rates, np.arange(30)) == pytest.approx([0.1] * 10 + [0.0] * 20)
    constant = rates_of(keras.optimizers.SGD(lambda: 0.25), 7, 30)
    assert set(constant.rates) == {0.25}
