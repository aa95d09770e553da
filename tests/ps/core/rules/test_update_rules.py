"""Update rules against Keras's own optimizers, and against themselves without blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downpour.ps.core.optimizer import BLOCK, Optimizer
from downpour.ps.core.rules.hyperparameters import Hyperparameters, known_hyperparameters, resolve
from downpour.ps.core.rules.update_rules import OPTIMIZERS

STEPS = 12
SIZE = 2_000

# Per rule, settings that differ from the defaults in each of its hyper-parameters.
VARIED: dict[str, list[dict[str, float]]] = {
    "sgd": [{"learning_rate": 0.1}, {"weight_decay": 0.3}],
    "momentum": [{"learning_rate": 0.1, "momentum": 0.5}, {"weight_decay": 0.3}],
    "nesterov": [{"learning_rate": 0.1, "momentum": 0.5}, {"weight_decay": 0.3}],
    "adagrad": [
        {"learning_rate": 0.1, "initial_accumulator_value": 0.0, "epsilon": 1e-3},
        {"learning_rate": 0.1, "weight_decay": 0.3},
    ],
    "rmsprop": [{"learning_rate": 0.01, "rho": 0.7, "epsilon": 1e-3}, {"momentum": 0.8}, {"weight_decay": 0.3}],
    "centered_rmsprop": [
        {"learning_rate": 0.01, "rho": 0.7, "epsilon": 1e-3},
        {"momentum": 0.8, "weight_decay": 0.3},
    ],
    "adam": [
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        {"learning_rate": 0.1, "weight_decay": 0.3},
    ],
    "amsgrad": [
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        {"learning_rate": 0.1, "weight_decay": 0.3},
    ],
    "adamw": [
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.3},
        {"weight_decay": 0.0},
    ],
    "amsgradw": [
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.3},
        {"weight_decay": 0.0},
    ],
    "nadam": [
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        {"learning_rate": 0.1, "weight_decay": 0.3},
    ],
    "adamax": [
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        {"learning_rate": 0.1, "weight_decay": 0.3},
    ],
    "adadelta": [{"learning_rate": 1.0, "rho": 0.7, "epsilon": 1e-3}, {"learning_rate": 0.1, "weight_decay": 0.3}],
    "ftrl": [
        {"learning_rate": 0.1, "initial_accumulator_value": 0.3, "l2_regularization_strength": 0.01},
        {"learning_rate_power": -0.7, "beta": 0.2, "l2_shrinkage_regularization_strength": 0.1},
        {"learning_rate": 0.1, "l1_regularization_strength": 0.01, "weight_decay": 0.3},
    ],
    "lion": [{"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.9}, {"learning_rate": 0.1, "weight_decay": 0.3}],
}
CASES = [(name, hyper) for name in OPTIMIZERS for hyper in ({}, *VARIED[name])]


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


def keras_optimizer(keras: Any, name: str, hyper: dict[str, float]) -> Any:
    """Keras's optimizer for a row of the registry; its defaults are Keras's own, not ours."""
    rule = OPTIMIZERS[name]
    options = {option: is_set for option, is_set in rule.keras_options.items() if option != "momentum"}
    momentum = {"momentum": 0.9} if rule.keras_options.get("momentum") else {}
    return getattr(keras.optimizers, rule.keras)(**{**momentum, **hyper}, **options)


def gradients(seed: int, size: int, steps: int) -> list[np.ndarray]:
    """Normal ones over many magnitudes, a tenth of them 0, as units that are never active have."""
    rng = np.random.default_rng(seed)
    magnitude = 10.0 ** rng.uniform(-6, 1, size)
    masks = rng.random((steps, size)) >= 0.1
    return [(rng.standard_normal(size) * magnitude * mask).astype(np.float32) for mask in masks]


def slots_of(theirs: Any) -> dict[str, np.ndarray]:
    """Keras's slots by our names: what stands behind the variable's name in theirs."""
    names = {id(v): v.path.split("/")[-1] for v in theirs.variables}
    return {names[id(v)][2:]: v.numpy() for v in theirs.variables if names[id(v)].startswith("w_")}


def assert_close(largest: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Weights agree to 2e-6 of the largest that each has been, which rounding errors of earlier steps refer to."""
    excess = np.abs(ours - theirs) - 2e-6 * np.maximum(largest, np.abs(theirs))
    at = int(excess.argmax())
    assert excess[at] <= 0, (excess[at], largest[at], ours[at], theirs[at])


@pytest.mark.parametrize(("name", "hyper"), CASES)
def test_each_step_is_that_of_keras(keras: Any, name: str, hyper: dict[str, float]) -> None:
    weights = np.random.default_rng(1).standard_normal(SIZE).astype(np.float32)
    ours = Optimizer(name, Hyperparameters(**hyper), SIZE)
    theirs = keras_optimizer(keras, name, hyper)
    variable = keras.Variable(weights, name="w")
    exactly = name in ("sgd", "lion") and not ours.settings["weight_decay"]
    cancels = name in ("nadam", "ftrl") or (name != "adamw" and ours.settings["weight_decay"] > 0)
    largest = np.abs(weights)
    for gradient in gradients(2, SIZE, STEPS):
        # Keras continues from its own state, so differences would accumulate over the steps.
        out = np.full(SIZE, np.nan, np.float32)
        ours.apply(weights, gradient, out)
        theirs.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        if cancels:
            assert_close(largest, out, variable.numpy())
        else:
            np.testing.assert_allclose(out, variable.numpy(), rtol=0 if exactly else 2e-6, atol=0)
        weights, largest = out, np.maximum(largest, np.abs(out))
    expected = slots_of(theirs)
    assert ours.step == int(theirs.iterations) == STEPS
    assert set(ours.slots) == set(expected)
    for slot, value in expected.items():
        if slot == "linear":
            # A sum of w nᵖ/η, with powers that NumPy and TensorFlow round differently.
            power = -ours.settings["learning_rate_power"]
            summand = largest * expected["accumulator"] ** power / ours.learning_rate
            assert_close(np.maximum(summand, np.abs(value)), ours.slots[slot], value)
        else:
            np.testing.assert_allclose(ours.slots[slot], value, rtol=2e-6, atol=0)


@pytest.mark.parametrize("name", [name for name, rule in OPTIMIZERS.items() if rule.counts])
def test_bias_correction_is_that_of_keras_however_long_training_lasts(keras: Any, name: str) -> None:
    gradient = np.array([1.0, -2.0, 1e-3], np.float32)
    ours = Optimizer(name, Hyperparameters(), 3)
    theirs = keras_optimizer(keras, name, {})
    variable = keras.Variable(np.zeros(3, np.float32), name="w")
    theirs.build([variable])
    for step in (0, 1, 2, 9, 99, 999, 9_999, 99_999):
        ours.restore(ours.state() | {"step": np.array(step)})
        theirs.iterations.assign(step)
        for attribute, value_after in OPTIMIZERS[name].keras_scalars.items():
            getattr(theirs, attribute).assign(value_after(ours.settings, step))
        weights, out = variable.numpy(), np.empty(3, np.float32)
        ours.apply(weights, gradient, out)
        theirs.apply([keras.ops.convert_to_tensor(gradient)])
        np.testing.assert_allclose(out, variable.numpy(), rtol=2e-6, atol=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_learning_rate_for_one_update_is_that_of_keras(keras: Any, name: str) -> None:
    weights = np.linspace(-1, 1, SIZE, dtype=np.float32)
    ours = Optimizer(name, Hyperparameters(), SIZE)
    theirs = keras_optimizer(keras, name, {})
    variable, largest = keras.Variable(weights, name="w"), np.abs(weights)
    for gradient, rate in zip(gradients(3, SIZE, 3), (0.02, 0.5, 0.003), strict=True):
        out = np.empty_like(weights)
        ours.apply(weights, gradient, out, learning_rate=rate)
        theirs.learning_rate = rate
        theirs.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        if name in ("nadam", "ftrl"):
            # Ftrl divides by a rate what it has summed with others, of which the largest is 25 times the one before.
            assert_close((25 if name == "ftrl" else 4) * largest, out, variable.numpy())
        else:
            np.testing.assert_allclose(out, variable.numpy(), rtol=2e-6, atol=0)
        weights = out


def test_default_hyper_parameters_are_those_of_keras(keras: Any) -> None:
    for name, rule in OPTIMIZERS.items():
        theirs = keras_optimizer(keras, name, {}).get_config()
        for key, value in rule.defaults.items():
            assert (theirs[key] or 0.0) == pytest.approx(value, rel=1e-6), f"{name}: {key}"


def test_every_hyper_parameter_of_every_rule_is_varied() -> None:
    for name, rule in OPTIMIZERS.items():
        assert {key for hyper in VARIED[name] for key in hyper} == set(rule.defaults), name
    assert set(known_hyperparameters()) == {key for rule in OPTIMIZERS.values() for key in rule.defaults}


def whole(optimizer: Optimizer, weights: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """The same equations on the whole vector at once."""
    out, scratch = np.empty_like(weights), np.empty_like(weights)
    rule = OPTIMIZERS[optimizer.name]
    scalars = rule.scalars(optimizer.settings, optimizer.step + 1)
    decay = optimizer.settings["weight_decay"] * optimizer.settings["learning_rate"]
    decayed = weights - weights * np.float32(decay) if decay else weights
    rule.block(decayed, gradient, out, scratch, tuple(optimizer.slots.values()), scalars)
    return out


@pytest.mark.parametrize(("name", "hyper"), CASES)
@settings(max_examples=12, deadline=None)
@given(
    size=st.one_of(
        st.integers(1, 40),
        st.tuples(st.integers(1, 3), st.integers(-3, 3)).map(lambda p: p[0] * BLOCK + p[1]),
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_blocks_change_nothing(name: str, hyper: dict[str, float], size: int, seed: int) -> None:
    weights = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    blocked, unblocked = (Optimizer(name, Hyperparameters(**hyper), size) for _ in range(2))
    for gradient in gradients(seed, size, 2):
        out = np.full(size, np.nan, np.float32)
        blocked.apply(weights, gradient, out)
        np.testing.assert_array_equal(out, whole(unblocked, weights, gradient))
        unblocked.step += 1
        weights = out
    for slot, value in unblocked.slots.items():
        np.testing.assert_array_equal(blocked.slots[slot], value)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_and_gradient_are_only_read_and_may_be_anywhere(name: str) -> None:
    size = BLOCK + 5
    weights = np.random.default_rng(4).standard_normal(size).astype(np.float32)
    (gradient,) = gradients(5, size, 1)
    expected = np.empty_like(weights)
    Optimizer(name, Hyperparameters(), size).apply(weights.copy(), gradient.copy(), expected)

    unaligned = np.frombuffer(b"\0" + gradient.tobytes(), np.float32, size, 1)
    assert not unaligned.flags.aligned
    for received in (gradient, unaligned):
        weights.flags.writeable = False
        received.flags.writeable = False
        out = np.empty_like(weights)
        Optimizer(name, Hyperparameters(), size).apply(weights, received, out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_scale_is_a_factor_on_the_gradient(name: str) -> None:
    weights = np.random.default_rng(6).standard_normal(SIZE).astype(np.float32)
    scaled, plain = (Optimizer(name, Hyperparameters(), SIZE) for _ in range(2))
    for gradient in gradients(7, SIZE, 3):
        received, expected = np.empty_like(weights), np.empty_like(weights)
        scaled.apply(weights, gradient, received, scale=1 / 3)
        plain.apply(weights, gradient * np.float32(1 / 3), expected)
        np.testing.assert_array_equal(received, expected)
        weights = received


@pytest.mark.parametrize(("name", "hyper"), CASES)
def test_momentum_for_one_update(name: str, hyper: dict[str, float]) -> None:
    weights = np.ones(SIZE, np.float32)
    first, second = gradients(8, SIZE, 2)
    optimizer = Optimizer(name, Hyperparameters(**hyper), SIZE)
    middle, out = np.empty_like(weights), np.empty_like(weights)
    optimizer.apply(weights, first, middle)
    if not optimizer.settings.get("momentum"):
        with pytest.raises(ValueError, match="momentum=0.25"):
            optimizer.apply(middle, second, out, momentum=0.25)
        assert optimizer.step == 1
        return
    optimizer.apply(middle, second, out, momentum=0.25)
    other = Optimizer(name, Hyperparameters(**(hyper | {"momentum": 0.25})), SIZE)
    before = Optimizer(name, Hyperparameters(**hyper), SIZE)
    before.apply(weights, first, np.empty_like(weights))
    other.restore(before.state())
    expected = np.empty_like(weights)
    other.apply(middle, second, expected)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("name", "hyper"), CASES)
def test_restored_state_continues_as_if_never_interrupted(name: str, hyper: dict[str, float]) -> None:
    weights = np.random.default_rng(9).standard_normal(SIZE).astype(np.float32)
    optimizer = Optimizer(name, Hyperparameters(**hyper), SIZE)
    for gradient in gradients(10, SIZE, 3):
        out = np.empty_like(weights)
        optimizer.apply(weights, gradient, out)
        weights = out
    saved = optimizer.state()

    def continued(optimizer: Optimizer) -> np.ndarray:
        current = weights
        for gradient in gradients(11, SIZE, 3):
            out = np.empty_like(current)
            optimizer.apply(current, gradient, out)
            current = out
        return current

    expected = continued(optimizer)  # and what was saved has not moved with it
    resumed = Optimizer(name, Hyperparameters(**hyper), SIZE)
    resumed.restore(saved)
    np.testing.assert_array_equal(continued(resumed), expected)
    assert resumed.step == optimizer.step == 6


def test_huge_gradients_overflow_without_a_warning() -> None:
    weights, huge = np.ones(3, np.float32), np.array([3e38, -3e38, 0], np.float32)
    for name in OPTIMIZERS:
        out = np.empty_like(weights)
        Optimizer(name, Hyperparameters(), 3).apply(weights, huge, out)
        # Ftrl does not add to the weights, it replaces them: by 0 where there has been no gradient.
        assert out[2] == pytest.approx(0 if name == "ftrl" else 1, abs=1e-4)


BAD = [
    ("learning_rate", 0.0), ("learning_rate", -0.5), ("learning_rate", float("inf")),
    ("learning_rate", float("nan")), ("learning_rate", "fast"), ("learning_rate", True),
    ("momentum", 1.0), ("momentum", -0.1), ("rho", 1.5), ("beta_1", 1.0), ("beta_2", -0.2),
    ("epsilon", 0.0), ("epsilon", float("nan")), ("weight_decay", -0.1), ("weight_decay", float("inf")),
    ("initial_accumulator_value", -1.0), ("learning_rate_power", 0.5), ("l1_regularization_strength", -1.0),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_bad_hyper_parameter_is_named_with_what_was_received(key: str, value: Any) -> None:
    for name in (name for name, rule in OPTIMIZERS.items() if key in rule.defaults):
        with pytest.raises(ValueError, match=key) as error:
            Optimizer(name, Hyperparameters(**{key: value}), 4)
        assert f"Received: {key}={value!r}" in str(error.value)
        assert "must be" in str(error.value)


def test_a_hyper_parameter_that_the_rule_does_not_use_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"sgd must be given only --learning-rate.*--momentum 0.9.*nesterov"):
        resolve("sgd", Hyperparameters(momentum=0.9))


def test_an_unknown_optimizer_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="muon") as error:
        Optimizer("muon", Hyperparameters(), 4)
    assert all(name in str(error.value) for name in OPTIMIZERS)


def test_vectors_that_do_not_fit_change_nothing() -> None:
    optimizer = Optimizer("adam", Hyperparameters(), 4)
    good = np.ones(4, np.float32)
    before = optimizer.state()
    unfit: list[tuple[Any, Any, Any, str]] = [
        (good, np.ones(5, np.float32), good.copy(), r"gradient must be float32\[4\]. Received: float32\[5\]"),
        (good, np.ones(4), good.copy(), r"gradient must be float32\[4\]. Received: float64\[4\]"),
        (np.ones((2, 2), np.float32), good, good.copy(), r"weights .* Received: float32\[2, 2\]"),
        (good, good, np.ones(3, np.float32), r"out .* Received: float32\[3\]"),
        (good, good.copy(), good, "out must share no memory"),
    ]
    for weights, gradient, out, message in unfit:
        with pytest.raises(ValueError, match=message):
            optimizer.apply(weights, gradient, out)
    for key, value in optimizer.state().items():
        np.testing.assert_array_equal(value, before[key])


def test_a_state_that_does_not_fit_is_rejected_whole() -> None:
    optimizer = Optimizer("momentum", Hyperparameters(), 4)
    state = optimizer.state()
    for bad, message in [
        (Optimizer("adagrad", Hyperparameters(), 4).state(), "must hold step, momentum. Received: step, accumulator"),
        (Optimizer("momentum", Hyperparameters(), 5).state(), r"slot momentum must be float32\[4\]. Received: .*\[5\]"),
        ({"momentum": np.ones(4, np.float32), "step": np.array(-1)}, "step must be one integer >= 0"),
        ({}, "Received: nothing"),
    ]:
        with pytest.raises(ValueError, match=message):
            optimizer.restore(bad)
    assert optimizer.step == 0
    np.testing.assert_array_equal(optimizer.slots["momentum"], state["momentum"])


def test_bytes_that_an_update_must_move() -> None:
    moved = {name: Optimizer(name, Hyperparameters(), 1).bytes_per_weight for name in OPTIMIZERS}
    assert (moved["sgd"], moved["momentum"], moved["rmsprop"], moved["adam"]) == (12, 20, 20, 28)
    for name in OPTIMIZERS:
        optimizer = Optimizer(name, Hyperparameters(), 7)
        assert optimizer.bytes_per_weight == 12 + 8 * len(optimizer.slots)
