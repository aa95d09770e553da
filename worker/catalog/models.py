"""The models: a registry of named ones, and any function that returns a Keras model.

Keras is imported inside the builders: reading this registry does not load TensorFlow.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from downpour.worker.catalog import course_models

if TYPE_CHECKING:
    import keras

Shape = tuple[int, ...]
PROBES = 4  # samples of noise on which the outputs of a model are looked at
NEAR_ONE = 0.05  # probabilities in half precision do not add up to better


class ModelError(ValueError):
    """A model cannot be found or built, or is not one that can be trained here."""


@dataclass(frozen=True)
class ModelRow:
    """One model of the registry.

    Attributes:
        builder: From the shape of a sample and the number of classes to a Keras model, not compiled.
        description: One line for `--help` and the documents.
        shape: Of samples that suit it.
        classes: Of data that suit it.
    """

    builder: Callable[[Shape, int], keras.Model]
    description: str
    shape: Shape = (28, 28)
    classes: int = 10


def build(spec: str, input_shape: Shape, classes: int) -> keras.Model:
    """Builds a model, ready for gradients: with weights, a loss, and one name for each weight.

    A model that comes back uncompiled gets sparse categorical cross-entropy, for which its outputs must be
    probabilities, and the metric accuracy.

    Args:
        spec: A name in `MODELS`, or `module:function`. The function returns a Keras model; of `input_shape`
            and `classes` it receives those that it has parameters for.
        input_shape: The shape of one sample.
        classes: The number of classes.

    Raises:
        ModelError: No such name, module or function; or it does not return a model that can be trained here.
    """
    if spec in MODELS:
        model = _from_registry(spec, input_shape, classes)
    elif ":" in spec:
        model = _call(spec, _find(spec), {"input_shape": input_shape, "classes": classes})
    else:
        raise ModelError(f"a model must be {', '.join(MODELS)}, or module:function. Received: {spec!r}.")
    _try(spec, model, np.zeros((1, *input_shape), np.float32))
    _check_names(spec, model)
    if not model.compiled:
        noise = np.random.default_rng(0).random((PROBES, *input_shape), np.float32)
        _compile(spec, model, _try(spec, model, noise), classes)
    return model


def load_weights(model: keras.Model, path: str) -> None:
    """Begins from the weights of a file; layers whose shapes differ, such as another head, begin anew.

    Raises:
        ModelError: It cannot be read.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        # Keras and HDF5 raise nearly anything on a damaged file.
        try:
            model.load_weights(path, skip_mismatch=True)
        except Exception as error:
            raise ModelError(
                f"--weights must be a file of weights of this model. Received: {path}: {type(error).__name__}: {error}"
            ) from error
    for warning in told:
        print(f"--weights: {warning.message}", file=sys.stderr)


def check_targets(spec: str, model: keras.Model, targets: np.ndarray) -> None:
    """Raises ModelError where a classifier is given numbers."""
    if targets.dtype.kind == "f" and "categorical" in str(model.loss):
        raise ModelError(
            f"{spec}: a classifier must be given class numbers. Received: targets of {targets.dtype}. "
            "Save them as integers, or choose a model of numbers, such as regression."
        )


def _from_registry(spec: str, input_shape: Shape, classes: int) -> keras.Model:
    """A registered model for this data; its builder may suit images alone."""
    try:
        return MODELS[spec].builder(input_shape, classes)
    except ValueError as error:
        raise ModelError(
            f"{spec} must be built for data that suit it. Received: samples of shape {input_shape}: {error} "
            "Choose another model, or reshape the samples."
        ) from error


def _find(spec: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module_name, _, function_name = spec.partition(":")
    if not module_name or not function_name:
        raise ModelError(f"a model's function must be named module:function. Received: {spec!r}.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python` itself would find it; the package's own modules are loaded
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ModelError(f"{spec}: {module_name} must import. Received: {error}. Install that.") from error
        raise ModelError(
            f"{spec}: the module must be importable. Received: {module_name!r}, which Python does not find. "
            "Run from the folder that it is in, or name that folder in PYTHONPATH."
        ) from error
    # A module may raise anything while it is imported.
    except Exception as error:
        raise ModelError(f"{spec}: {module_name} must import. Received: {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        received = "no such name" if function is None else f"a {type(function).__name__}"
        raise ModelError(
            f"{spec}: {function_name} must be a function in {module_name} that returns a Keras model. "
            f"Received: {received}. Its functions are: {', '.join(functions) or 'none'}."
        )
    return function


def _call(spec: str, function: Callable[..., Any], offered: dict[str, Any]) -> keras.Model:
    """What the user's function returns, once it is known to be a Keras model."""
    import keras

    parameters = inspect.signature(function).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    if unknown := [name for name in required if name not in offered]:
        raise ModelError(
            f"{spec}: the function must need no parameters but {' and '.join(offered)}. "
            f"Received: one that needs {', '.join(unknown)} too. Give these a default."
        )
    wanted = {name: value for name, value in offered.items() if any(p.name == name for p in parameters)}
    # The function is the user's: whatever it raises is the answer to why there is no model.
    try:
        model = function(**wanted)
    except Exception as error:
        raise ModelError(f"{spec}: the function must not raise. Received: {type(error).__name__}: {error}") from error
    if not isinstance(model, keras.Model):
        raise ModelError(f"{spec}: it must return a keras.Model. Received: a {type(model).__name__}.")
    return model


def _try(spec: str, model: keras.Model, samples: np.ndarray) -> Any:
    """Runs samples, which makes weights exist that do not yet, and returns what comes out."""
    import keras

    # What a layer raises on a shape that it does not take is its own affair.
    try:
        return model(keras.ops.convert_to_tensor(samples))
    except Exception as error:
        raise ModelError(
            f"{spec}: the model must take samples of shape {samples.shape[1:]}, which the dataset has. "
            f"Received: {type(error).__name__}: {error}"
        ) from error


def _check_names(spec: str, model: keras.Model) -> None:
    """The layout names a weight by its path, so no two may share one."""
    counts = Counter(weight.path for weight in model.weights)
    if repeated := [path for path, count in counts.items() if count > 1]:
        raise ModelError(
            f"{spec}: every weight must have a path of its own. "
            f"Received more than once: {', '.join(repeated)}. Give the layers different names."
        )


def _compile(spec: str, model: keras.Model, output: Any, classes: int) -> None:
    """Gives a classifier its loss."""
    shape = tuple(getattr(output, "shape", ()))
    if len(shape) != 2 or shape[1] < classes:
        raise ModelError(
            f"{spec}: the model must return one probability for each of {classes} classes. "
            f"Received: the shape {shape[1:]} for a sample. "
            "Widen its last layer; where it is no classifier, compile it with its loss."
        )
    _check_probabilities(spec, output)
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])


def _check_probabilities(spec: str, output: Any) -> None:
    """Raises ModelError for logits: of their logarithm, cross-entropy would be learnt from nonsense, silently."""
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


MODELS: Mapping[str, ModelRow] = {
    "sigmoid100": ModelRow(_sigmoid100, "Dense 100 sigmoid, softmax: the reference, 79,510 weights on MNIST"),
    "cnn": ModelRow(_cnn, "Conv 64x3x3, batch norm, Dense 200 and 100 selu: 2.2 M weights on MNIST"),
    "bn_selu": ModelRow(course_models.bn_selu, "batch norm, Dense 200 and 100 selu, batch norm; early stopping"),
    "fashion128": ModelRow(course_models.fashion128, "Dense 128 relu: Fashion-MNIST"),
    "perceptron": ModelRow(course_models.perceptron("step"), "one unit with a step: truth tables", (2,), 2),
    **{
        f"perceptron_{name}": ModelRow(course_models.perceptron(name), f"one unit with {name}: truth tables", (2,), 2)
        for name in course_models.ACTIVATIONS
        if name != "step"
    },
    "xor_mlp": ModelRow(course_models.xor_mlp("tanh"), "8 tanh units and one sigmoid: XOR", (2,), 2),
    "xor_mlp_sigmoid": ModelRow(course_models.xor_mlp("sigmoid"), "8 sigmoid units and one more: XOR", (2,), 2),
    "xor_mlp_relu": ModelRow(course_models.xor_mlp("relu"), "8 ReLU units and one sigmoid: XOR", (2,), 2),
    "regression": ModelRow(course_models.regression, "Dense 32 relu, squared error: a plane with noise", (5,), 1),
    "svm": ModelRow(course_models.svm, "linear scores, hinge loss"),
    "svr": ModelRow(course_models.svr, "linear, ε-insensitive loss: a plane with noise", (5,), 1),
    "resnet50": ModelRow(course_models.resnet50, "keras.applications: 25.6 M weights; data from an .npz", (32, 32, 3)),
}

# Settings that a model's figure was reached with; whatever is said on the command line wins.
RECOMMENDED: Mapping[str, Mapping[str, Any]] = course_models.RECOMMENDED
