"""A user's compiled model is trained as it was compiled, or the difference is refused by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import JobConflict
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.admission import check_optimizer
from downpour.ps.core.rules.hyperparameters import resolve
from downpour.ps.core.rules.update_rules import OPTIMIZERS
from downpour.worker.catalog import datasets, models
from downpour.worker.catalog.compiled import METHODS
from downpour.worker.catalog.datasets import Dataset
from downpour.worker.catalog.models import ModelError, check_targets
from downpour.worker.catalog.scaling import scaled, scaling_text
from downpour.worker.compute.flat_model import data_checksum
from downpour.worker.config import factor_of
from downpour.worker.train.compiled_optimizer import compiled_optimizer

HEAD = "import keras\nfrom keras import layers\n"
DENSE = "keras.Sequential([keras.Input((4,)), layers.Dense(3, activation='softmax')])"
SPARSE = "'sparse_categorical_crossentropy'"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "own_compiled.py"
    sys.modules.pop("own_compiled", None)


def build(own: Path, body: str, shape: tuple[int, ...] = (4,), head: str = "") -> keras.Model:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    own.write_text(f"{HEAD}{head}\ndef make():\n{lines}")
    sys.modules.pop("own_compiled", None)
    return models.build("own_compiled:make", shape, 3)


def compiled(own: Path, arguments: str) -> keras.Model:
    return build(own, f"model = {DENSE}\nmodel.compile({arguments})\nreturn model")


# ------------------------------------------------------------------------------ what only fit carries out


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_fit_would_call_is_refused_by_name(own: Path, name: str) -> None:
    head = f"class Own(keras.Sequential):\n    def {name}(self, *arguments, **named):\n        return {{}}\n"
    body = f"model = Own({DENSE}.layers)\nmodel.compile(loss={SPARSE})\nreturn model"
    with pytest.raises(ModelError, match=rf"Own with a {name} of its own"):
        build(own, body, head=head)


def test_a_method_that_was_set_on_the_model_is_refused(own: Path) -> None:
    with pytest.raises(ModelError, match="train_step of its own"):
        build(own, f"model = {DENSE}\nmodel.compile(loss={SPARSE})\nmodel.train_step = print\nreturn model")


def test_a_model_with_its_own_call_is_trained(own: Path) -> None:
    head = "class Own(keras.Sequential):\n    def call(self, x, training=None):\n        return super().call(x)\n"
    assert build(own, f"return Own({DENSE}.layers)", head=head).loss == "sparse_categorical_crossentropy"


@pytest.mark.parametrize("kind", ["MaxNorm(1.0)", "NonNeg()", "UnitNorm()", "MinMaxNorm()"])
@pytest.mark.parametrize("place", ["kernel_constraint", "bias_constraint"])
def test_a_constraint_is_refused_by_name(own: Path, kind: str, place: str) -> None:
    layer = f"layers.Dense(3, activation='softmax', {place}=keras.constraints.{kind})"
    with pytest.raises(ModelError, match=kind.partition("(")[0]):
        build(own, f"return keras.Sequential([keras.Input((4,)), {layer}])")


@pytest.mark.parametrize("policy", ["float64", "float16", "mixed_float16"])
def test_a_policy_of_other_types_is_refused(own: Path, policy: str) -> None:
    layer = f"layers.Dense(3, activation='softmax', dtype={policy!r})"
    with pytest.raises(ModelError, match="float16|float64"):
        build(own, f"return keras.Sequential([keras.Input((4,)), {layer}])")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("optimizer=keras.optimizers.Adam()", "compiled without a loss"),
        (f"loss={SPARSE}, loss_weights=0.5", "loss_weights=0.5"),
        (f"loss=[{SPARSE}]", "one output with one loss"),
    ],
)
def test_a_loss_that_is_not_carried_out_is_refused(own: Path, arguments: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        compiled(own, arguments)


# ------------------------------------------------------------------------------ the optimizer


def spec_of(model: keras.Model, clip_norm: float = 0.0) -> pb.OptimizerSpec | None:
    return compiled_optimizer("own_compiled:make", model, clip_norm)


def test_a_model_without_an_optimizer_of_its_author_leaves_the_choice_to_the_job(own: Path) -> None:
    assert spec_of(compiled(own, f"loss={SPARSE}")) is None
    assert spec_of(build(own, f"return {DENSE}")) is None


@pytest.mark.parametrize("name", [name for name, rule in OPTIMIZERS.items() if rule.keras])
def test_the_job_must_have_the_optimizer_that_the_model_is_compiled_with(own: Path, name: str) -> None:
    rule = OPTIMIZERS[name]
    hyper = {**rule.defaults, "learning_rate": 3e-4}
    options = {key: value for key, value in rule.keras_options.items() if key not in hyper}
    arguments = ", ".join(f"{key}={value!r}" for key, value in {**hyper, **options}.items() if value)
    spec = spec_of(compiled(own, f"keras.optimizers.{rule.keras}({arguments}), {SPARSE}"))
    assert spec is not None and spec.name == name
    settings = {"optimizer": name, **hyper}
    check_optimizer(spec, ServerSettings.model_validate(settings))
    with pytest.raises(JobConflict, match=f"--optimizer {name} --learning-rate 0.0003"):
        check_optimizer(spec, ServerSettings.model_validate({**settings, "learning_rate": 0.1}))
    other = "sgd" if name != "sgd" else "adam"
    with pytest.raises(JobConflict, match=f"--optimizer {name}.*the job has --optimizer {other}"):
        check_optimizer(spec, ServerSettings(optimizer=other, learning_rate=3e-4))


def test_the_flags_of_the_message_are_accepted(own: Path) -> None:
    spec = spec_of(compiled(own, f"keras.optimizers.Adam(1e-4, beta_1=0.8), {SPARSE}"))
    assert spec is not None
    with pytest.raises(JobConflict) as caught:
        check_optimizer(spec, ServerSettings())
    words = str(caught.value).split(";")[0].split("optimizer, ")[1].split()
    given = {key[2:].replace("-", "_"): value for key, value in zip(words[::2], words[1::2], strict=True)}
    settings = ServerSettings.model_validate(given)
    check_optimizer(spec, settings)
    assert resolve(settings.optimizer, settings.hyper)["beta_1"] == 0.8


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("clipnorm=1.0", "clipnorm"),
        ("clipvalue=1.0", "clipvalue"),
        ("global_clipnorm=1.0", "--clip-norm 1.0"),
        ("use_ema=True", "use_ema"),
        ("gradient_accumulation_steps=2", "gradient_accumulation_steps"),
        ("loss_scale_factor=2.0", "loss_scale_factor"),
        ("learning_rate=keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)", "--schedule"),
    ],
)
def test_an_argument_that_the_servers_do_not_carry_out_is_refused(own: Path, argument: str, words: str) -> None:
    model = compiled(own, f"keras.optimizers.SGD({argument}), {SPARSE}")
    with pytest.raises(ModelError, match=words):
        spec_of(model)


def test_a_job_that_clips_has_the_optimizer_that_clips(own: Path) -> None:
    model = compiled(own, f"keras.optimizers.SGD(0.1, global_clipnorm=2.0), {SPARSE}")
    assert spec_of(model, clip_norm=2.0) is not None


def test_an_optimizer_of_another_class_is_refused(own: Path) -> None:
    with pytest.raises(ModelError, match="Received: Lamb"):
        spec_of(compiled(own, f"keras.optimizers.Lamb(), {SPARSE}"))
    head = "class Mine(keras.optimizers.SGD):\n    pass\n"
    model = build(own, f"model = {DENSE}\nmodel.compile(Mine(), {SPARSE})\nreturn model", head=head)
    with pytest.raises(ModelError, match="Received: Mine"):
        spec_of(model)


# ------------------------------------------------------------------------------ labels


def data(x: np.ndarray, y: np.ndarray) -> Dataset:
    return datasets.dataset_of("data.npz", {"x_train": x, "y_train": y, "x_test": x, "y_test": y})


FEATURES = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


@pytest.mark.parametrize("loss", [SPARSE, "keras.losses.SparseCategoricalCrossentropy(from_logits=True)"])
def test_a_label_without_an_output_is_refused_by_its_number(own: Path, loss: str) -> None:
    model = compiled(own, f"loss={loss}")
    check_targets("mine", model, data(FEATURES, np.arange(8) % 3))
    with pytest.raises(ModelError, match=r"from 0 to 2, as the model has 3 outputs.*Received: 3 in y_train"):
        check_targets("mine", model, data(FEATURES, np.arange(8) % 4))
    later = replace(data(FEATURES, np.arange(8) % 3), y_test=np.array([7]))
    with pytest.raises(ModelError, match="Received: 7 in y_test"):
        check_targets("mine", model, later)


def test_a_class_that_the_loss_ignores_needs_no_output(own: Path) -> None:
    model = compiled(own, "loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=255)")
    check_targets("mine", model, data(FEATURES, np.array([0, 1, 2, 255] * 2)))


def test_a_binary_loss_takes_two_classes(own: Path) -> None:
    body = "model = keras.Sequential([keras.Input((4,)), layers.Dense(1, activation='sigmoid')])\n"
    model = build(own, body + "model.compile(loss='binary_crossentropy')\nreturn model")
    check_targets("mine", model, data(FEATURES, np.arange(8) % 2))
    with pytest.raises(ModelError, match="from 0 to 1"):
        check_targets("mine", model, data(FEATURES, np.arange(8) % 3))


def test_a_loss_of_rows_is_not_given_class_numbers(own: Path) -> None:
    with pytest.raises(ModelError, match="sparse_categorical_crossentropy"):
        check_targets("mine", compiled(own, "loss='categorical_crossentropy'"), data(FEATURES, np.arange(8) % 3))


# ------------------------------------------------------------------------------ scaling

PIXELS = data(np.arange(32, dtype=np.uint8).reshape(8, 4) * 8, np.arange(8) % 3)
FLAGS = data((np.arange(32) % 2).astype(np.uint8).reshape(8, 4), np.arange(8) % 3)


def test_the_factor_is_a_property_of_the_dataset() -> None:
    assert (PIXELS.scale, FLAGS.scale, data(FEATURES, np.arange(8)).scale) == (1 / 255, 1.0, 1.0)


@pytest.mark.parametrize("layer", ["layers.Rescaling(1 / 255)", "layers.Normalization()", "layers.Embedding(256, 2)"])
def test_a_model_that_takes_stored_values_receives_them(own: Path, layer: str) -> None:
    rest = "layers.Flatten(), layers.Dense(3, activation='softmax')"
    model = build(own, f"return keras.Sequential([keras.Input((4,)), {layer}, {rest}])")
    found = scaled(PIXELS, model, None, own=True)
    assert found.scale == 1.0 and "used unchanged" in scaling_text(found)
    assert scaled(PIXELS, model, 0.5, own=True).scale == 0.5


def test_a_model_that_may_scale_by_itself_needs_the_flag(own: Path) -> None:
    bodies = [
        f"return keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x / 255), *{DENSE}.layers])",
        "x = keras.Input((4,))\nreturn keras.Model(x, layers.Dense(3, activation='softmax')(x / 255.0))",
    ]
    for body in bodies:
        model = build(own, body)
        with pytest.raises(ModelError, match="--scale must be given"):
            scaled(PIXELS, model, None, own=True)
        assert scaled(PIXELS, model, 1.0, own=True).scale == 1.0
        assert scaled(FLAGS, model, None, own=True).scale == 1.0


def test_a_plain_model_receives_values_from_0_to_1(own: Path) -> None:
    found = scaled(PIXELS, build(own, f"return {DENSE}"), None, own=True)
    assert found.scale == 1 / 255 and "divided by 255" in scaling_text(found)


@pytest.mark.parametrize(("text", "factor"), [("auto", None), ("1", 1.0), ("1/255", 1 / 255), ("0.5", 0.5)])
def test_a_factor_is_a_number_or_a_fraction(text: str, factor: float | None) -> None:
    assert factor_of(text) == factor


@pytest.mark.parametrize("text", ["", "0", "-1", "1/0", "nan", "inf", "a", "1/2/3"])
def test_what_is_no_factor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be auto, a number above 0"):
        factor_of(text)


def test_workers_with_different_factors_have_different_data(own: Path) -> None:
    model = build(own, f"return {DENSE}")
    one, other = (scaled(PIXELS, model, given, own=True) for given in (None, 1.0))
    assert data_checksum(one, model) == PIXELS.checksum != data_checksum(other, model)
