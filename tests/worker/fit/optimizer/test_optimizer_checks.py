"""An optimizer is accepted only if the servers make exactly its updates; else the refusal says what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from downpour.protos.errors import Unsupported
from downpour.worker.fit.optimizer.loss_scale import let_scale
from downpour.worker.fit.optimizer.optimizer_checks import CLASSES, check_supported, config_of
from downpour.worker.fit.optimizer.optimizer_spec import SUPPORTED


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


REFUSED: Sequence[tuple[str, dict[str, Any], str]] = (
    ("Lamb", {}, r"SGD, Adagrad, RMSprop, Adam, AdamW, Nadam.*Received: keras\..*Lamb.*use AdamW"),
    ("Adafactor", {}, "Adafactor.*RMSprop or Adam"),
    ("Muon", {}, "Muon.*AdamW or SGD"),
    ("SGD", {"use_ema": True, "gradient_accumulation_steps": 2}, "either use_ema or gradient_accumulation_steps"),
    ("SGD", {"momentum": 1.0}, "momentum must be a finite number >= 0 and < 1. Received: momentum=1.0"),
    ("Adam", {"weight_decay": -0.1}, "weight_decay must be a finite number >= 0"),
)


@pytest.mark.parametrize(("kind", "arguments", "message"), REFUSED)
def test_optimizers_that_the_servers_lack_are_refused(
    keras: Any, kind: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(Unsupported, match=message):
        check_supported(getattr(keras.optimizers, kind)(**arguments))


def test_every_optimizer_of_keras_is_supported_or_refused_with_an_alternative(keras: Any) -> None:
    found = (getattr(keras.optimizers, name) for name in dir(keras.optimizers))
    classes = {each.__name__ for each in found if isinstance(each, type) and issubclass(each, keras.Optimizer)}
    assert classes - {"Optimizer", "TFOptimizer", "LossScaleOptimizer"} <= set(SUPPORTED) | set(CLASSES)


def test_a_subclass_of_the_optimizer_that_scales_the_loss_is_refused(keras: Any) -> None:
    class Own(keras.optimizers.LossScaleOptimizer):
        pass

    inner = keras.optimizers.Adam()
    with pytest.raises(Unsupported, match="must be a keras.optimizers.LossScaleOptimizer. Received: .*Own"):
        let_scale(Own(inner), inner)
    let_scale(scaling := keras.optimizers.LossScaleOptimizer(inner), inner)
    assert isinstance(scaling, keras.optimizers.LossScaleOptimizer)
    assert keras.optimizers.serialize(scaling)["class_name"] == "LossScaleOptimizer"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras's save
@pytest.mark.parametrize("name", SUPPORTED)
def test_an_optimizer_is_accepted_before_and_after_use_and_when_loaded(keras: Any, name: str, tmp_path: Any) -> None:
    optimizer = getattr(keras.optimizers, name)()
    check_supported(optimizer)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(np.ones((4, 3), np.float32), np.ones((4, 1), np.float32), verbose=0)
    check_supported(optimizer)
    model.save(tmp_path / "model.keras")
    check_supported(keras.models.load_model(tmp_path / "model.keras").optimizer)
    optimizer.learning_rate = 0.5
    optimizer.clipnorm = 1.0
    check_supported(optimizer)


@pytest.mark.parametrize("given", [{"var_names": ["bias"]}, {"var_list": True}])
def test_weights_may_be_excluded_from_decay(keras: Any, given: dict[str, Any]) -> None:
    optimizer = keras.optimizers.AdamW()
    if "var_list" in given:
        given = {"var_list": [keras.Variable(np.zeros(2, np.float32), name="bias")]}
    optimizer.exclude_from_weight_decay(**given)
    check_supported(optimizer)


def test_an_attribute_that_the_arguments_do_not_explain_is_named(keras: Any) -> None:
    optimizer = keras.optimizers.Adam()
    optimizer.gradient_centralization = True
    with pytest.raises(Unsupported, match="Received: one with gradient_centralization = True.*Do not set"):
        check_supported(optimizer)


CHANGES: dict[str, Callable[[Any], None]] = {
    "update_step": lambda optimizer: setattr(optimizer, "update_step", lambda *given: None),
    "apply": lambda optimizer: setattr(optimizer, "apply", lambda *given: None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_method_that_has_been_replaced_is_named(keras: Any, name: str) -> None:
    optimizer = keras.optimizers.SGD()
    CHANGES[name](optimizer)
    with pytest.raises(Unsupported, match=f"SGD whose {name} has been replaced"):
        check_supported(optimizer)


def test_a_method_that_has_been_replaced_in_the_class_is_named(keras: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.optimizers.SGD, "update_step", lambda *given: None)
    with pytest.raises(Unsupported, match="SGD whose update_step has been replaced"):
        check_supported(keras.optimizers.SGD())


def test_a_subclass_that_changes_nothing_is_accepted(keras: Any) -> None:
    class Tuned(keras.optimizers.Adam):
        """Adam with arguments of its own."""

        def __init__(self, learning_rate: float = 0.01, name: str = "tuned", **kwargs: Any) -> None:
            super().__init__(learning_rate, name=name, **kwargs)

        def describe(self) -> str:
            return f"Adam, {self.beta_1}"

    check_supported(Tuned(beta_1=0.8))


@pytest.mark.parametrize("method", ["update_step", "apply", "build", "learning_rate", "_clip_gradients"])
def test_a_subclass_that_overrides_what_is_carried_is_refused(keras: Any, method: str) -> None:
    kind: Any = type("Mine", (keras.optimizers.Adam,), {method: lambda self, *given: None})
    with pytest.raises(Unsupported, match=f"Mine with its own {method}"):
        check_supported(kind.__new__(kind))


def test_a_subclass_that_its_configuration_does_not_define_is_refused(keras: Any) -> None:
    class Scaled(keras.optimizers.SGD):
        def __init__(self, factor: float, **kwargs: Any) -> None:
            super().__init__(0.1, **kwargs)
            self.factor = factor

    with pytest.raises(Unsupported, match="defined by its get_config. Received: Scaled"):
        check_supported(Scaled(2.0))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of the text of Keras's variable
def test_a_hyperparameter_that_can_change_is_refused(keras: Any) -> None:
    beta = keras.Variable(0.9)
    with pytest.raises(Unsupported, match="beta_1 must be a number"):
        check_supported(keras.optimizers.Adam(beta_1=beta))


def test_a_rate_that_cannot_be_serialized_is_supported(keras: Any) -> None:
    class Mine(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> float:
            return 0.1

    for rate in (lambda: 0.1, Mine()):
        optimizer = keras.optimizers.SGD(rate)
        check_supported(optimizer)
        assert config_of(optimizer)["momentum"] == 0.0 and optimizer._learning_rate is rate
