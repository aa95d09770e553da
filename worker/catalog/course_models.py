"""The models of a course on neural networks, from one unit with a step to a residual network.

Keras is imported inside the builders: reading their table does not load TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

Shape = tuple[int, ...]
TUBE = 0.05  # ε of the ε-insensitive loss
ACTIVATIONS = ("step", "sign", "linear", "sigmoid", "tanh", "relu")
THRESHOLDS = ("step", "sign")


def bn_selu(input_shape: Shape, classes: int) -> keras.Model:
    """Batch normalisation before and after two self-normalising layers."""
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
    """Keras's own first example for Fashion-MNIST."""
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
    """keras.applications' ResNet-50, from random weights."""
    from keras.applications import ResNet50

    return ResNet50(weights=None, input_shape=input_shape, classes=classes, name="resnet50")


def perceptron(activation: str) -> Callable[[Shape, int], keras.Model]:
    """One unit with an activation, trained on squared error.

    Step and sign have no derivative: the gradient is passed on as if they were linear, which makes gradient descent
    the perceptron rule w += η (y − ŷ) x (Rosenblatt 1958). Outputs are near 0 or 1.
    """

    def built(input_shape: Shape, classes: int) -> keras.Model:
        from keras import Input, Model, layers

        inputs = Input(input_shape)
        # A ReLU that begins below 0 for all samples has no gradient, and stays there.
        kernel = "ones" if activation == "relu" else "glorot_uniform"
        outputs = _activated(layers.Dense(1, kernel_initializer=kernel, name="unit")(inputs), activation)
        model = Model(inputs, outputs, name=f"perceptron_{activation}")
        model.compile(loss="mean_squared_error")
        return model

    return built


def xor_mlp(activation: str) -> Callable[[Shape, int], keras.Model]:
    """A hidden layer of eight units and one sigmoid: learns what one unit cannot."""

    def built(input_shape: Shape, classes: int) -> keras.Model:
        from keras import Input, Sequential, initializers, layers

        # ReLU units that begin below 0 for all rows stay there, and too few of them may be left to part XOR.
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
    """One hidden layer, trained on squared error."""
    from keras import Input, Sequential, layers

    model = Sequential(
        [Input(input_shape), layers.Dense(32, activation="relu", name="hidden"), layers.Dense(1, name="output")],
        name="regression",
    )
    model.compile(loss="mean_squared_error")
    return model


def svm(input_shape: Shape, classes: int) -> keras.Model:
    """Linear scores under the multi-class hinge loss, Σ over j ≠ y of max(0, 1 + s_j − s_y) (Weston, Watkins 1999)."""
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
    """A linear function under the ε-insensitive loss max(0, |y − f| − ε) (Vapnik 1995), ε = 0.05."""
    from keras import Input, Sequential, layers, ops

    def insensitive(y: Any, outputs: Any) -> Any:
        distance = ops.abs(ops.reshape(outputs, (-1,)) - ops.cast(ops.reshape(y, (-1,)), outputs.dtype))
        return ops.relu(distance - TUBE)

    model = Sequential([Input(input_shape), layers.Dense(1, name="output")], name="svr")
    return _with_own_loss(model, insensitive)


def _activated(z: Any, activation: str) -> Any:
    from keras import layers, ops

    if activation not in THRESHOLDS:
        return layers.Activation(activation, name="activation")(z)
    # Keras's own operations, so that the saved model loads in plain Keras: forward the threshold, backward z.
    hard = (ops.sign(z) + 1.0) * 0.5 if activation == "sign" else ops.cast(ops.greater(z, 0.0), "float32")
    return z + ops.stop_gradient(hard - z)


def _with_own_loss(model: Any, loss: Callable[[Any, Any], Any]) -> Any:
    """Compiles with a loss that plain Keras does not know: the model is saved without it, and loads there."""
    model.compile(loss=loss)
    object.__setattr__(model, "get_compile_config", dict)
    return model


# Settings that a model's figure was reached with; whatever is said on the command line wins.
RECOMMENDED: Mapping[str, Mapping[str, Any]] = {
    "bn_selu": {"learning_rate": 0.05, "epochs": 30, "early_stopping": 5},
    # At the course's 0.05 the first gradients, of norms up to 100, send the loss of plain Keras from 3 to 46, from
    # which it comes back; computed from weights one update old, they send it beyond all bounds. Of norm 1 they do not.
    # The rate falls to a tenth by the end of 2 epochs, of 1782 batches each: else the last few steps decide.
    "cnn": {"learning_rate": 0.05, "clip_norm": 1.0, "schedule": "linear:3564,0.1", "epochs": 2},
    # Adam at full rate leaves accuracy to the last few steps, by 0.01 up or down. The rate falls to a tenth by the end
    # of the 5 epochs, of 1782 batches each.
    "fashion128": {
        "dataset": "fashion_mnist",
        "optimizer": "adam",
        "learning_rate": 0.001,
        "schedule": "linear:8910,0.1",
        "epochs": 5,
    },
    **{
        name: {"dataset": "and", "learning_rate": 0.1, "batch_size": 4, "epochs": 4}
        for name in ("perceptron", *(f"perceptron_{each}" for each in ACTIVATIONS if each != "step"))
    },
    **{
        name: {"dataset": "xor", "optimizer": "adam", "learning_rate": 0.02, "batch_size": 4, "epochs": 8}
        for name in ("xor_mlp", "xor_mlp_sigmoid", "xor_mlp_relu")
    },
    # With momentum 0.9 and gradients a constant three updates old, as four workers in step make them, 0.01 swings.
    "regression": {"dataset": "plane", "optimizer": "momentum", "learning_rate": 0.005, "momentum": 0.9, "epochs": 40},
    "svm": {"learning_rate": 0.005, "epochs": 5},
    "svr": {"dataset": "plane", "learning_rate": 0.01, "epochs": 20},
    "resnet50": {"learning_rate": 0.01, "epochs": 1},
}
