"""The models of a course on neural networks, from a perceptron to a residual network.

Every builder has the signature of `ModelRow.builder`. Keras is imported inside the builders, so that the registry can
be read without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

Shape = tuple[int, ...]
EPSILON = 0.05  # of the ε-insensitive loss
ACTIVATIONS = ("step", "sign", "linear", "sigmoid", "tanh", "relu")
THRESHOLDS = ("step", "sign")


def bn_selu(input_shape: Shape, classes: int) -> keras.Model:
    """Return a classifier with batch normalization before and after two self-normalizing layers (Klambauer 2017)."""
    from keras import Input, Sequential, layers

    selu: dict[str, Any] = {"activation": "selu", "kernel_initializer": "lecun_normal"}
    return Sequential(
        [
            Input(input_shape),
            layers.Flatten(name="flatten"),
            layers.BatchNormalization(name="normalization_1"),
            layers.Dense(200, name="hidden_1", **selu),
            layers.Dense(100, name="hidden_2", **selu),
            layers.BatchNormalization(name="normalization_2"),
            layers.Dense(classes, activation="softmax", name="output"),
        ],
        name="bn_selu",
    )


def fashion128(input_shape: Shape, classes: int) -> keras.Model:
    """Return the classifier of Keras's introductory example for Fashion-MNIST."""
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input(input_shape),
            layers.Flatten(name="flatten"),
            layers.Dense(128, activation="relu", name="hidden"),
            layers.Dense(classes, activation="softmax", name="output"),
        ],
        name="fashion128",
    )


def resnet50(input_shape: Shape, classes: int) -> keras.Model:
    """Return ResNet-50 of `keras.applications` with random weights (He et al. 2016)."""
    from keras.applications import ResNet50

    return ResNet50(weights=None, input_shape=input_shape, classes=classes, name="resnet50")


def perceptron(activation: str) -> Callable[[Shape, int], keras.Model]:
    """Return the builder of a single unit with an activation, trained on the squared error.

    Step and sign have no useful derivative: the gradient is computed as if they were linear, which makes gradient
    descent the perceptron rule w += η (y − ŷ) x (Rosenblatt 1958). The targets are 0 and 1.

    Args:
        activation: One of `ACTIVATIONS`.
    """

    def built(input_shape: Shape, classes: int) -> keras.Model:
        from keras import Input, Model, layers

        inputs = Input(input_shape)
        # A ReLU whose input is negative for all samples has no gradient, and would never change.
        kernel = "ones" if activation == "relu" else "glorot_uniform"
        outputs = _activated(layers.Dense(1, kernel_initializer=kernel, name="unit")(inputs), activation)
        model = Model(inputs, outputs, name=f"perceptron_{activation}")
        model.compile(loss="mean_squared_error")
        return model

    return built


def xor_mlp(activation: str) -> Callable[[Shape, int], keras.Model]:
    """Return the builder of a network with eight hidden units and a sigmoid, which can learn XOR.

    Args:
        activation: Activation of the hidden units, as Keras names it.
    """

    def built(input_shape: Shape, classes: int) -> keras.Model:
        from keras import Input, Sequential, initializers, layers

        # ReLU units whose input is negative for all rows never change, and too few others may be left to separate XOR.
        bias = initializers.Constant(0.5 if activation == "relu" else 0.0)
        model = Sequential(
            [
                Input(input_shape),
                layers.Dense(8, activation=activation, bias_initializer=bias, name="hidden"),
                layers.Dense(1, activation="sigmoid", name="output"),
            ],
            name="xor_mlp",
        )
        model.compile(loss="binary_crossentropy")
        return model

    return built


def regression(input_shape: Shape, classes: int) -> keras.Model:
    """Return a regression model with one hidden layer, trained on the squared error."""
    from keras import Input, Sequential, layers

    model = Sequential(
        [Input(input_shape), layers.Dense(32, activation="relu", name="hidden"), layers.Dense(1, name="output")],
        name="regression",
    )
    model.compile(loss="mean_squared_error")
    return model


def svm(input_shape: Shape, classes: int) -> keras.Model:
    """Return a linear classifier with the multi-class hinge loss (Weston, Watkins 1999).

    The loss of scores s and class y is Σ_{j ≠ y} max(0, 1 + s_j − s_y).
    """
    from keras import Input, Sequential, layers, ops

    def hinge(y: Any, scores: Any) -> Any:
        right = ops.one_hot(ops.cast(ops.reshape(y, (-1,)), "int32"), scores.shape[-1], dtype=scores.dtype)
        own = ops.sum(scores * right, axis=-1, keepdims=True)
        return ops.sum(ops.relu(1.0 + scores - own) * (1.0 - right), axis=-1)

    model = Sequential(
        [Input(input_shape), layers.Flatten(name="flatten"), layers.Dense(classes, name="scores")], name="svm"
    )
    return _with_own_loss(model, hinge)


def svr(input_shape: Shape, classes: int) -> keras.Model:
    """Return a linear regression model with the ε-insensitive loss max(0, |y − f| − ε), ε = 0.05 (Vapnik 1995)."""
    from keras import Input, Sequential, layers, ops

    def insensitive(y: Any, outputs: Any) -> Any:
        distance = ops.abs(ops.reshape(outputs, (-1,)) - ops.cast(ops.reshape(y, (-1,)), outputs.dtype))
        return ops.relu(distance - EPSILON)

    model = Sequential([Input(input_shape), layers.Dense(1, name="output")], name="svr")
    return _with_own_loss(model, insensitive)


def _activated(z: Any, activation: str) -> Any:
    from keras import layers, ops

    if activation not in THRESHOLDS:
        return layers.Activation(activation, name="activation")(z)
    # The value is the threshold's, the gradient z's. Keras's own operations, so that plain Keras loads the saved model.
    hard = (ops.sign(z) + 1.0) * 0.5 if activation == "sign" else ops.cast(ops.greater(z, 0.0), "float32")
    return z + ops.stop_gradient(hard - z)


def _with_own_loss(model: Any, loss: Callable[[Any, Any], Any]) -> Any:
    """Compile a model with a loss that plain Keras lacks; the model is saved without it, so that Keras can load it."""
    model.compile(loss=loss)
    object.__setattr__(model, "get_compile_config", dict)
    return model
