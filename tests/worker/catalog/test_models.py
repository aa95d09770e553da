"""The models: each row of the registry, and the functions that a user names."""

import sys

import numpy as np
import pytest

from downpour.worker.catalog import models
from downpour.worker.catalog.models import ModelError, reason_of_keras

WEIGHTS = {"sigmoid100": 79_510, "cnn": 2_185_406, "bn_selu": 181_646, "fashion128": 101_770}


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_classifier_of_images_can_train(name):
    model = models.build(name, (28, 28), 10)
    assert model.count_params() == WEIGHTS[name]
    paths = [weight.path for weight in model.weights]
    assert len(set(paths)) == len(paths)
    probabilities = np.asarray(model(np.zeros((3, 28, 28), np.float32)))
    np.testing.assert_allclose(probabilities.sum(axis=1), np.ones(3), rtol=1e-5)
    assert model.compiled and model.loss == "sparse_categorical_crossentropy"


@pytest.mark.parametrize("name", WEIGHTS)
def test_two_processes_give_a_weight_the_same_path(name):
    first, second = (models.build(name, (28, 28), 10) for _ in range(2))
    assert [weight.path for weight in first.weights] == [weight.path for weight in second.weights]


@pytest.mark.parametrize("name", models.MODELS)
def test_every_row_is_described_in_one_line(name):
    description = models.MODELS[name].description
    assert description and "\n" not in description


def test_images_with_channels_keep_them():
    assert models.build("cnn", (32, 32, 3), 5).output_shape == (None, 5)


def test_data_that_do_not_suit_a_model_are_refused():
    with pytest.raises(ModelError, match=r"cnn must be built for data of a suitable shape.*\(7,\)"):
        models.build("cnn", (7,), 3)


SOURCE = """
import keras
from keras import layers

def plain():
    return keras.Sequential([layers.Input((4,)), layers.Dense(3, activation="softmax")])

def asks(classes, input_shape, width=5):
    return keras.Sequential([layers.Input(input_shape), layers.Dense(width), layers.Dense(classes, "softmax")])

def compiled():
    model = plain()
    model.compile(loss="mse")
    return model

def without_input(classes):
    return keras.Sequential([layers.Flatten(), layers.Dense(classes, "softmax")])

def logits(classes):
    return keras.Sequential([layers.Input((4,)), layers.Dense(classes)])

def sigmoids(classes):
    return keras.Sequential([layers.Input((4,)), layers.Dense(classes, "sigmoid")])

def compiled_logits(classes):
    model = logits(classes)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model

def of_images(classes):
    return keras.Sequential([layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(classes)])

def needs_more(classes, depth):
    return plain()

def returns_text():
    return "model"

def fails():
    raise KeyError("depth")

class Twins(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(3, name="twin"), layers.Dense(3, name="twin")

    def call(self, x):
        return self.first(x) + self.second(x)

twins = Twins
number = 3
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text(SOURCE)
    (tmp_path / "imports_none.py").write_text("import no_such_package\n")
    (tmp_path / "divides.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("own_models", "imports_none", "divides"):
        sys.modules.pop(name, None)


def test_a_function_may_need_nothing(own_module):
    model = models.build("own_models:plain", (4,), 3)
    assert model.loss == "sparse_categorical_crossentropy"


def test_a_function_receives_what_it_has_parameters_for(own_module):
    model = models.build("own_models:asks", (4,), 2)
    assert model.input_shape == (None, 4) and model.output_shape == (None, 2)


def test_a_compiled_model_keeps_its_loss(own_module):
    assert models.build("own_models:compiled", (4,), 3).loss == "mse"


def test_a_model_without_an_input_gets_its_weights(own_module):
    assert models.build("own_models:without_input", (2, 2), 3).count_params() == 4 * 3 + 3


BAD_SPECS = {
    "sigmoid": "must be sigmoid100, cnn, .*, or module:function. Received: 'sigmoid'",
    "own_models:": "must be named module:function",
    ":plain": "must be named module:function",
    "no_such_module:plain": "module must be importable.*'no_such_module'.*PYTHONPATH",
    "no_such.module:plain": "module must be importable.*'no_such.module'",
    "imports_none:plain": "imports_none must import.*no_such_package",
    "divides:plain": "divides must import.*ZeroDivisionError",
    "own_models:absent": "absent must be a function.*no such name.*plain, asks",
    "own_models:number": "number must be a function.*an object of type int",
    "own_models:needs_more": "must require no parameters other than input_shape and classes.*depth",
    "own_models:returns_text": "must return a keras.Model. Received: an object of type str",
    "own_models:fails": "must not raise. Received: KeyError: 'depth'",
    "own_models:twins": "unique path.*twin/kernel",
}


@pytest.mark.parametrize(("spec", "message"), BAD_SPECS.items())
def test_an_invalid_spec_is_refused_with_the_requirement(own_module, spec, message):
    with pytest.raises(ModelError, match=message):
        models.build(spec, (4,), 3)


def test_samples_that_a_function_s_model_does_not_take_are_named(own_module):
    for spec in ("own_models:plain", "own_models:of_images"):
        with pytest.raises(ModelError, match=rf"{spec}: the model must accept samples of shape \(5,\)"):
            models.build(spec, (5,), 3)


def test_too_few_outputs_are_counted(own_module):
    with pytest.raises(ModelError, match=r"one probability for each of 7 classes.*\(3,\)"):
        models.build("own_models:plain", (4,), 7)


@pytest.mark.parametrize("spec", ["own_models:logits", "own_models:sigmoids"])
def test_outputs_that_are_no_probabilities_need_a_loss_of_the_model_s_own(own_module, spec):
    with pytest.raises(ModelError, match=rf"{spec}: .*must return probabilities.*sums from.*from_logits=True"):
        models.build(spec, (4,), 3)
    assert models.build("own_models:compiled_logits", (4,), 3).loss.from_logits


def test_the_reason_of_an_error_of_keras_is_one_line_without_values() -> None:
    text = (
        "Exception encountered when calling Sequential.call().\n\n\x1b[1mInvalid input shape for input [[[0. 0.]\n"
        "  [0. 1e-3]]] with name 'keras_tensor'. Expected shape (None, 5), but input has incompatible shape (1, 28, 28)"
        "\x1b[0m\n\nArguments received by Sequential.call():\n  • inputs=tf.Tensor(shape=(1, 28, 28))"
    )
    assert reason_of_keras(ValueError(text)) == (
        "Invalid input shape for input […] with name 'keras_tensor'. Expected shape (None, 5), but input has "
        "incompatible shape (1, 28, 28)"
    )
    assert reason_of_keras(ValueError("matrices [[1, 2]] a\nb")) == "matrices […] a b"
