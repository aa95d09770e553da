"""The registry of models, and the checks that make a registered model or a user's function ready for training.

A new model is one row of `MODELS`. Keras is imported inside the builders, so that reading the registry does not load
TensorFlow.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from downpour.worker.catalog import course_models
from downpour.worker.catalog.compiled import (
    check_compiled,
    compile_calls_recorded,
    keras_loss,
    leave_optimizer_to_job,
    loss_name,
)
from downpour.worker.catalog.user_models import ModelError, call_function, find_function

if TYPE_CHECKING:
    import keras

    from downpour.worker.catalog.datasets import Dataset

__all__ = ["MODELS", "ModelError", "ModelRow", "build", "check_targets", "load_weights"]

Shape = tuple[int, ...]
PROBES = 4  # samples of noise on which the outputs of a model are checked
NEAR_ONE = 0.05  # the sum of probabilities in half precision is no more precise


@dataclass(frozen=True)
class ModelRow:
    """A row of the registry of models.

    Attributes:
        builder: Function from the shape of a sample and the number of classes to a Keras model. A model that it does
            not compile is a classifier that returns probabilities.
        description: One line for the documentation.
        shape: The shape of a sample of suitable data.
        classes: The number of classes of suitable data; 1 if the targets are numbers.
        settings: The settings of `downpour train` with which the model's published result was reached. They are the
            defaults for this model; the command line takes precedence.
    """

    builder: Callable[[Shape, int], keras.Model]
    description: str
    shape: Shape = (28, 28)
    classes: int = 10
    settings: Mapping[str, Any] = field(default_factory=dict)


def build(spec: str, input_shape: Shape, classes: int) -> keras.Model:
    """Return a model that is ready to be trained: it has weights with unique names, and a loss.

    A model that its builder has not compiled is compiled with sparse categorical cross-entropy, for which its outputs
    must be probabilities, and the metric accuracy.

    Args:
        spec: A name in `MODELS`, or `module:function`. The function returns a Keras model; it receives `input_shape`
            and `classes` if it has parameters of these names.
        input_shape: The shape of one sample.
        classes: The number of classes.

    Raises:
        ModelError: There is no model, module or function of this name.
        ModelError: The function does not return a model that can be trained on samples of this shape.
    """
    if spec in MODELS:
        model = _from_registry(spec, input_shape, classes)
    elif ":" in spec:
        with compile_calls_recorded():
            model = call_function(spec, find_function(spec), {"input_shape": input_shape, "classes": classes})
    else:
        raise ModelError(f"a model must be {', '.join(MODELS)}, or module:function. Received: {spec!r}.")
    outputs = _try(spec, model, np.zeros((1, *input_shape), np.float32))
    _check_names(spec, model)
    if ":" in spec:
        check_compiled(spec, model, outputs)
    if not model.compiled:
        noise = np.random.default_rng(0).random((PROBES, *input_shape), np.float32)
        _compile(spec, model, _try(spec, model, noise), classes)
    return model


def load_weights(model: keras.Model, path: str) -> None:
    """Load the weights of a file; a layer whose shape differs, such as another head, keeps its initial weights.

    Args:
        model: The model to change.
        path: The path of a file of weights that Keras reads.

    Raises:
        ModelError: The file cannot be read.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Keras and HDF5 raise nearly anything on a damaged file.
        try:
            model.load_weights(path, skip_mismatch=True)
        except Exception as error:
            raise ModelError(
                f"--weights must be a file of weights of this model. Received: {path}: {type(error).__name__}: "
                f"{error}. Name a file that Keras's save_weights has written."
            ) from error
    for warning in caught:
        print(f"--weights: {warning.message}", file=sys.stderr)


def check_targets(spec: str, model: keras.Model, dataset: Dataset) -> None:
    """Check that the targets of a dataset are what the loss of a model accepts.

    Raises:
        ModelError: A classifier is to be trained on numbers, or on a class that none of its outputs stands for.
    """
    loss, targets = loss_name(model), dataset.y_train
    if targets.dtype.kind == "f" and "categorical" in loss.lower():
        raise ModelError(
            f"{spec}: a classifier must be given class numbers. Received: targets of {targets.dtype}. "
            "Save them as integers, or choose a model for numeric targets, such as regression."
        )
    if targets.dtype.kind == "f":
        return
    if loss.lower().replace("_", "").startswith("categorical"):
        raise ModelError(
            f"{spec}: the loss of class numbers must be sparse_categorical_crossentropy. Received: {loss}, which takes "
            "one-hot rows. Compile the model with the other loss."
        )
    outputs = _try(spec, model, np.zeros((1, *dataset.input_shape), np.float32))
    limit = _classes_of(loss, int(outputs.shape[-1]))
    ignored = getattr(keras_loss(model), "ignore_class", None)
    for name, labels in (("y_train", dataset.y_train), ("y_test", dataset.y_test)):
        counted = labels if ignored is None else labels[labels != ignored]
        largest = int(counted.max(initial=0))
        if limit is not None and largest >= limit:
            raise ModelError(
                f"{spec}: labels must be class numbers from 0 to {limit - 1}, as the model has {outputs.shape[-1]} "
                f"outputs and the loss {loss}. Received: {largest} in {name} of {dataset.name}. Widen the last layer, "
                "or renumber the classes."
            )


def _classes_of(loss: str, outputs: int) -> int | None:
    """Return how many classes a loss distinguishes by their numbers, or None if it accepts any number."""
    name = loss.lower().replace("_", "")
    if name == "sparsecategoricalcrossentropy":
        return outputs
    return 2 if name in ("binarycrossentropy", "binaryfocalcrossentropy") else None


def _from_registry(spec: str, input_shape: Shape, classes: int) -> keras.Model:
    """Return a registered model for samples of this shape, for which its builder may raise an error."""
    try:
        return MODELS[spec].builder(input_shape, classes)
    except ValueError as error:
        raise ModelError(
            f"{spec} must be built for data of a suitable shape. Received: samples of shape {input_shape}: {error} "
            "Choose another model, or reshape the samples."
        ) from error


def _try(spec: str, model: keras.Model, samples: np.ndarray) -> Any:
    """Return the outputs for some samples; layers that are not built yet create their weights."""
    import keras

    # A layer may raise any error for a shape that it does not accept.
    try:
        return model(keras.ops.convert_to_tensor(samples))
    except Exception as error:
        raise ModelError(
            f"{spec}: the model must accept samples of shape {samples.shape[1:]}, the shape in the dataset. "
            f"Received: {type(error).__name__}: {reason_of_keras(error)}"
        ) from error


def reason_of_keras(error: Exception) -> str:
    """Return the reason of an error of Keras as one line, without its frame, the values of tensors and colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    text = re.sub(r"^Exception encountered when calling [^\n]*\n+", "", text)
    text = re.split(r"\n+Arguments received by", text)[0]
    return " ".join(re.sub(r"\[\[(?:[-+.,\s\[\]\deE]|nan|inf)*\]\]", "[…]", text).split())


def _check_names(spec: str, model: keras.Model) -> None:
    """Raise ModelError if two weights have the same path, by which the layout identifies them."""
    counts = Counter(weight.path for weight in model.weights)
    if repeated := [path for path, count in counts.items() if count > 1]:
        raise ModelError(
            f"{spec}: every weight must have a unique path. "
            f"Received more than once: {', '.join(repeated)}. Give the layers different names."
        )


def _compile(spec: str, model: keras.Model, output: Any, classes: int) -> None:
    """Compile a classifier with its loss."""
    shape = tuple(getattr(output, "shape", ()))
    if len(shape) != 2 or shape[1] < classes:
        raise ModelError(
            f"{spec}: the model must return one probability for each of {classes} classes. "
            f"Received: the shape {shape[1:]} for a sample. "
            "Widen its last layer, or compile it with its loss if it is not a classifier."
        )
    _check_probabilities(spec, output)
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    leave_optimizer_to_job(model)


def _check_probabilities(spec: str, output: Any) -> None:
    """Raise ModelError for logits, whose logarithm would give a meaningless loss without an error."""
    rows = np.asarray(output, np.float64)
    low, sums = rows.min(), rows.sum(axis=1)
    if not (low >= 0 and np.abs(sums - 1).max() <= NEAR_ONE):
        raise ModelError(
            f"{spec}: a model that is not compiled must return probabilities, at least 0 and with the sum 1. "
            f"Received: a smallest output of {low:.3g} and sums from {sums.min():.3g} to {sums.max():.3g}. "
            "End it with a softmax, or compile it with its loss, for logits "
            "keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
        )


def _sigmoid100(input_shape: Shape, classes: int) -> keras.Model:
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input(input_shape),
            layers.Flatten(name="flatten"),
            layers.Dense(100, activation="sigmoid", name="hidden"),
            layers.Dense(classes, activation="softmax", name="output"),
        ],
        name="sigmoid100",
    )


def _cnn(input_shape: Shape, classes: int) -> keras.Model:
    from keras import Input, Sequential, layers

    # Grey images have no channel axis; a convolution needs one.
    image_shape = input_shape if len(input_shape) == 3 else (*input_shape, 1)
    return Sequential(
        [
            Input(input_shape),
            layers.Reshape(image_shape, name="image"),
            layers.Conv2D(64, 3, name="convolution"),
            layers.MaxPooling2D(2, name="pool"),
            layers.BatchNormalization(name="normalization"),
            layers.Flatten(name="flatten"),
            layers.Dense(200, activation="selu", kernel_initializer="lecun_normal", name="hidden_1"),
            layers.Dense(100, activation="selu", kernel_initializer="lecun_normal", name="hidden_2"),
            layers.Dense(classes, activation="softmax", name="output"),
        ],
        name="cnn",
    )


# Adam at full rate leaves the accuracy to the last few steps, by 0.01 up or down. The rate falls to a tenth by the end
# of the 5 epochs, of 1782 batches each.
_FASHION128 = {
    "dataset": "fashion_mnist", "optimizer": "adam", "learning_rate": 0.001, "schedule": "linear:8910,0.1", "epochs": 5,
}  # fmt: skip
# With the course's rate of 0.05, the first gradients, of norms up to 100, raise the loss of plain Keras from 3 to 46,
# from which it recovers; computed from weights one update old, they make it diverge. Gradients of norm 1 do not.
# The rate falls to a tenth by the end of 2 epochs, of 1782 batches each: otherwise the last few steps decide.
_CNN = {"learning_rate": 0.05, "clip_norm": 1.0, "schedule": "linear:3564,0.1", "epochs": 2}
_BN_SELU = {"learning_rate": 0.05, "epochs": 30, "early_stopping": 5}
_PERCEPTRON = {"dataset": "and", "learning_rate": 0.1, "batch_size": 4, "epochs": 4}
_XOR = {"dataset": "xor", "optimizer": "adam", "learning_rate": 0.02, "batch_size": 4, "epochs": 8}
# With momentum 0.9 and gradients a constant three updates old, as four workers in step make them, 0.01 oscillates.
_REGRESSION = {"dataset": "plane", "optimizer": "momentum", "learning_rate": 0.005, "momentum": 0.9, "epochs": 40}

MODELS: Mapping[str, ModelRow] = {
    "sigmoid100": ModelRow(_sigmoid100, "Dense 100 sigmoid, softmax: the reference, 79,510 weights on MNIST"),
    "cnn": ModelRow(_cnn, "Conv 64x3x3, batch norm, Dense 200 and 100 selu: 2.2 M weights on MNIST", settings=_CNN),
    "bn_selu": ModelRow(
        course_models.bn_selu, "batch norm, Dense 200 and 100 selu, batch norm; early stopping", settings=_BN_SELU
    ),
    "fashion128": ModelRow(course_models.fashion128, "Dense 128 relu: Fashion-MNIST", settings=_FASHION128),
    "perceptron": ModelRow(
        course_models.perceptron("step"), "one unit with a step: truth tables", (2,), 2, _PERCEPTRON
    ),
    **{
        f"perceptron_{each}": ModelRow(
            course_models.perceptron(each), f"one unit with {each}: truth tables", (2,), 2, _PERCEPTRON
        )
        for each in course_models.ACTIVATIONS
        if each != "step"
    },
    "xor_mlp": ModelRow(course_models.xor_mlp("tanh"), "8 tanh units and one sigmoid: XOR", (2,), 2, _XOR),
    "xor_mlp_sigmoid": ModelRow(course_models.xor_mlp("sigmoid"), "8 sigmoid units and one more: XOR", (2,), 2, _XOR),
    "xor_mlp_relu": ModelRow(course_models.xor_mlp("relu"), "8 ReLU units and one sigmoid: XOR", (2,), 2, _XOR),
    "regression": ModelRow(
        course_models.regression, "Dense 32 relu, squared error: a plane with noise", (5,), 1, _REGRESSION
    ),
    "svm": ModelRow(course_models.svm, "linear scores, hinge loss", settings={"learning_rate": 0.005, "epochs": 5}),
    "svr": ModelRow(
        course_models.svr, "linear, ε-insensitive loss: a plane with noise", (5,), 1,
        {"dataset": "plane", "learning_rate": 0.01, "epochs": 20},
    ),
    "resnet50": ModelRow(
        course_models.resnet50, "keras.applications: 25.6 M weights; data from an .npz", (32, 32, 3),
        settings={"learning_rate": 0.01, "epochs": 1},
    ),
}  # fmt: skip
