"""Gradients against finite differences and against Keras's own, state and random layers included."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.layout import STATE, TRAINED
from downpour.worker.catalog.datasets import Dataset
from downpour.worker.catalog.models import MODELS, build
from downpour.worker.compute.environment import model_fingerprint
from downpour.worker.compute.gradient import (
    LARGE_BYTES,
    Gradient,
    GradientFunction,
    layout_of,
    read_weights,
    write_weights,
)
from downpour.worker.exchange.pages import pages

SAMPLES, BATCH = 24, 8
SMALL = [name for name in MODELS if name != "resnet50"]  # in eager mode that one takes a minute


def dataset(shape: tuple[int, ...], classes: int = 3) -> Dataset:
    """A few random pixels of random classes."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (SAMPLES, *shape), np.uint8)
    y = rng.integers(0, classes, SAMPLES).astype(np.int32)
    return Dataset("random", x, y, x[:4], y[:4], "c" * 64)


def model_of(*layers: Any, shape: tuple[int, ...] = (5,)) -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.layers.Input(shape), *layers, keras.layers.Dense(3, activation="softmax")])


def dense(**options: Any) -> Any:
    return keras.layers.Dense(4, activation="tanh", **options)


def by_keras(model: keras.Model, data: Dataset, indices: np.ndarray) -> tuple[np.ndarray, float]:
    """What Keras's own training step computes: `[gradient, change of the state]`, and the loss."""
    before = read_weights(model)
    x = data.x_train[indices].astype(np.float32) * data.scale
    loss_of = keras.losses.get(model.loss or "sparse_categorical_crossentropy")
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        labels = data.y_train[indices].reshape(-1, 1) if outputs.shape[-1] == 1 else data.y_train[indices]
        loss = tf.add_n([tf.reduce_mean(loss_of(labels, outputs)), *model.losses])
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    flat = read_weights(model) - before  # of which the state has moved
    write_weights(model, before)
    flat[: layout_of(model).trained] = np.concatenate([np.ravel(gradient) for gradient in gradients])
    return flat, float(loss)


def test_large_tensors_are_pieces_of_their_own_and_small_ones_are_joined() -> None:
    model = model_of(dense(), keras.layers.Dense(LARGE_BYTES // 16), shape=(5,))
    data, weights, indices = dataset((5,)), read_weights(model), np.arange(BATCH, dtype=np.int32)
    found = GradientFunction(model, data, BATCH)(weights, indices)
    assert isinstance(found.vector, ChunkedVector)
    assert [len(array) for array in found.vector.arrays[:2]] == [5 * 4 + 4, LARGE_BYTES // 4]
    theirs, _ = by_keras(model, data, indices)
    np.testing.assert_allclose(found.flat, theirs, rtol=1e-3, atol=1e-5 * float(np.abs(theirs).max()))


def test_a_batch_has_at_most_all_samples() -> None:
    model, data = model_of(dense()), dataset((5,))
    function = GradientFunction(model, data, 10**9)
    function.warm_up(read_weights(model), "off")
    indices = np.arange(SAMPLES, dtype=np.int32)
    theirs, loss = by_keras(model, data, indices)
    found = function(read_weights(model), indices)
    assert function.batch_size == SAMPLES and found.loss == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(found.flat, theirs, rtol=1e-4, atol=1e-6)


class HalfOfSquares(keras.layers.Layer):
    """A layer whose loss alone has a gradient: its weights. With `opaque`, of a length that TensorFlow cannot tell."""

    def __init__(self, opaque: bool) -> None:
        super().__init__()
        self._opaque = opaque

    def build(self, shape: tuple[int, ...]) -> None:
        self.large = self.add_weight(shape=(LARGE_BYTES // 4,), name="large", initializer="ones")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def hidden(w: tf.Tensor) -> Any:
            return tf.nn.l2_loss(w), lambda up: up * tf.numpy_function(np.copy, [w], tf.float32)

        weights = tf.convert_to_tensor(self.large)
        self.add_loss(hidden(weights) if self._opaque else tf.nn.l2_loss(weights))
        return x


@pytest.mark.parametrize("opaque", [False, True])
def test_a_gradient_that_is_its_tensor_does_not_change_with_the_weights(opaque: bool) -> None:
    model = model_of(HalfOfSquares(opaque))
    weights = np.frombuffer(pages(4 * layout_of(model).size), np.float32)
    weights[:] = read_weights(model)
    function = GradientFunction(model, dataset((5,)), BATCH)
    found = function(weights, np.arange(BATCH, dtype=np.int32))
    before = found.flat.copy()
    weights += 1  # as the next reply may
    assert (before[: LARGE_BYTES // 4] == 1).all()
    np.testing.assert_array_equal(found.flat, before)


@pytest.mark.parametrize("rest", [0, 2])
def test_numbers_may_follow_a_large_tensor_or_a_small_one(rest: int) -> None:
    found = Gradient.of([tf.ones([7]), tf.constant([1.0] * rest + [6.0, 5.0, 4.0])], tf.zeros([7 + rest]), steps=2)
    assert found.flat.tolist() == [1.0] * (7 + rest)
    assert (found.loss, found.correct, found.norm) == (3.0, 5, 4.0)


@pytest.mark.parametrize("name", SMALL)
def test_every_model_of_the_registry_has_keras_own_gradient(name: str) -> None:
    row = MODELS[name]
    data = dataset(row.shape, classes=row.classes)
    model = build(name, row.shape, row.classes)
    function = GradientFunction(model, data, BATCH, 0.0)
    indices = np.arange(BATCH, dtype=np.int32)
    ours = function(read_weights(model), indices)
    theirs, loss = by_keras(model, data, indices)
    np.testing.assert_allclose(ours.flat, theirs, rtol=1e-3, atol=1e-5 * float(np.abs(theirs).max()))
    assert ours.loss == pytest.approx(loss, rel=1e-4)
    trained = theirs[: layout_of(model).trained]
    assert ours.norm == pytest.approx(float(np.linalg.norm(trained)), rel=1e-3)


@pytest.mark.parametrize("xla", ["off", "on"])
def test_finite_differences(xla: str) -> None:
    model = model_of(dense(), keras.layers.BatchNormalization(), dense(kernel_regularizer="l2"))
    function = GradientFunction(model, dataset((5,)), BATCH, 0.0)
    flat = read_weights(model)
    function.warm_up(flat, xla)
    assert function.xla == (xla == "on")
    n, rng, step = layout_of(model).trained, np.random.default_rng(2), 1e-2
    for size in (BATCH, 3):
        indices = rng.permutation(SAMPLES)[:size].astype(np.int32)
        gradient = np.array(function(flat, indices).flat)
        for _ in range(5):
            direction = np.zeros_like(flat)
            direction[:n] = rng.standard_normal(n) / np.sqrt(n)
            there, back = (function(flat + sign * step * direction, indices).loss for sign in (1, -1))
            assert (there - back) / (2 * step) == pytest.approx(float(gradient @ direction), rel=0.05, abs=2e-3)


def test_the_state_moves_as_in_keras_and_what_is_frozen_stays() -> None:
    frozen = dense()
    frozen.trainable = False
    model = model_of(frozen, keras.layers.BatchNormalization(momentum=0.5), dense())
    layout = layout_of(model)
    assert {tensor.section for tensor in layout.tensors} == {TRAINED, STATE}
    data, indices = dataset((5,)), np.arange(BATCH, dtype=np.int32)
    ours = function_of(model, data)(read_weights(model), indices)
    theirs, _ = by_keras(model, data, indices)
    np.testing.assert_allclose(ours.flat, theirs, rtol=1e-4, atol=1e-6)
    moved = {name: view.any() for name, view in layout.views(np.array(ours.flat)).items()}
    assert all(moved[name] for name in moved if "moving" in name)
    assert not any(variable.path in moved for variable in frozen.variables)


def function_of(model: keras.Model, data: Dataset, **options: Any) -> GradientFunction:
    return GradientFunction(model, data, BATCH, **options)


def test_random_layers_draw_for_each_push_and_repeat_for_a_retry() -> None:
    model = model_of(dense(), keras.layers.Dropout(0.5), dense())
    function, flat = function_of(model, dataset((5,))), read_weights(model)
    indices = np.arange(BATCH, dtype=np.int32)

    def drawn(*seed: int, step: int = 0) -> bytes:
        return np.array(function(flat, indices, seed, step).flat).tobytes()

    assert drawn(0, 1, 1) == drawn(0, 1, 1)
    assert len({drawn(0, 1, 1), drawn(0, 1, 2), drawn(0, 2, 1), drawn(0, 1, 1, step=1)}) == 4


@pytest.mark.parametrize("clip", [0.0, 0.05, 1e6])
def test_clipping_keeps_the_direction_and_bounds_the_norm(clip: float) -> None:
    model, data, indices = model_of(dense()), dataset((5,)), np.arange(BATCH, dtype=np.int32)
    whole = np.array(function_of(model, data)(read_weights(model), indices).flat)
    clipped = function_of(model, data, clip_norm=clip)(read_weights(model), indices)
    norm = float(np.linalg.norm(whole))
    scale = min(1.0, clip / norm) if clip else 1.0
    np.testing.assert_allclose(clipped.flat, whole * scale, rtol=1e-4, atol=1e-7)
    assert clipped.norm == pytest.approx(norm * scale, rel=1e-4)


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_detected_with_and_without_clipping(value: float, clip: float) -> None:
    model = model_of(dense())
    flat = read_weights(model)
    flat[0] = value
    gradient = function_of(model, dataset((5,)), clip_norm=clip)(flat, np.arange(BATCH, dtype=np.int32))
    assert isinstance(gradient, Gradient)
    assert gradient.finite == bool(np.isfinite(gradient.flat).all())
    if np.isnan(value):
        assert not gradient.finite


def test_correct_counts_the_samples_that_are_classified_right() -> None:
    model, data = model_of(dense()), dataset((5,))
    indices = np.arange(BATCH, dtype=np.int32)
    gradient = function_of(model, data)(read_weights(model), indices)
    outputs = model(data.x_train[indices] * np.float32(data.scale), training=False)
    assert gradient.correct == int((np.argmax(outputs, 1) == data.y_train[indices]).sum())


@pytest.mark.parametrize("name", SMALL)
def test_weights_survive_the_flat_vector(name: str) -> None:
    model = build(name, MODELS[name].shape, MODELS[name].classes)
    layout = layout_of(model)
    flat = np.random.default_rng(3).standard_normal(layout.size).astype(np.float32)
    write_weights(model, flat)
    np.testing.assert_array_equal(read_weights(model), flat)
    views = layout.views(flat)
    for variable in model.trainable_variables:
        np.testing.assert_array_equal(np.asarray(variable.value), views[variable.path])
    assert layout.trained == sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def test_the_fingerprint_of_a_model_covers_its_activations_and_is_the_same_in_every_process() -> None:
    def model(activation: str) -> keras.Model:
        keras.utils.clear_session()
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation=activation, name="only")])

    assert model_fingerprint(model("relu")) == model_fingerprint(model("relu")) != model_fingerprint(model("tanh"))
    assert len(model_fingerprint(model("relu"))) == 16
