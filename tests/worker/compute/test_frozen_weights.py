"""Frozen weights stay in the worker: they are neither pushed nor pulled, and the model has them all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import STATE, TRAINED
from downpour.protos.transports import TRANSPORTS
from downpour.worker.catalog.datasets import Dataset, split
from downpour.worker.compute.evaluate import Evaluator
from downpour.worker.compute.flat_model import data_checksum, layout_of, read_weights, write_weights
from downpour.worker.compute.gradient import GradientFunction
from downpour.worker.compute.local_steps import LocalSteps
from downpour.worker.train.evaluation import EvaluationRunner
from tests.support.cluster import running

BATCH = 8
INDICES = np.arange(BATCH, dtype=np.int32)


def data() -> Dataset:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (24, 6), np.uint8), rng.integers(0, 3, 24).astype(np.int32)
    return Dataset("random", x, y, x[:4], y[:4], "c" * 64)


def model_with_a_frozen_layer(seed: int = 1) -> keras.Model:
    keras.utils.set_random_seed(seed)
    body = keras.Sequential([keras.layers.Dense(50, activation="tanh"), keras.layers.BatchNormalization()])
    body.trainable = False
    layers = [keras.layers.Input((6,)), body, keras.layers.BatchNormalization(), keras.layers.Dense(3, "softmax")]
    model = keras.Sequential(layers)
    model.compile(loss="sparse_categorical_crossentropy")
    return model


def frozen_of(model: keras.Model) -> list[np.ndarray]:
    """Kernel, bias, γ and β of the frozen body."""
    return [variable.numpy().copy() for layer in model.layers[0].layers for variable in layer._trainable_variables]


def test_the_layout_holds_no_frozen_weights() -> None:
    layout = layout_of(model_with_a_frozen_layer())
    assert layout.trained == 2 * 50 + 50 * 3 + 3
    assert [tensor.name.rpartition("/")[2] for tensor in layout.tensors if tensor.section == STATE] == [
        "moving_mean", "moving_variance", "moving_mean", "moving_variance",
    ]  # fmt: skip
    assert sum(tensor.size for tensor in layout.tensors if tensor.section == TRAINED) == layout.trained


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_push_carries_no_frozen_weights(tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_with_a_frozen_layer()
    sent: list[int] = []
    function = GradientFunction(model, data(), BATCH)
    function.warm_up(read_weights(model), "off")  # before there is a session that might expire meanwhile
    with running(tmp_path, workers=1) as cluster:
        (member,) = cluster.train(layout_of(model), 1, read_weights(model), transport=transport)
        gradient = function(member.pull().flat, INDICES)
        (link,) = member.client._links
        send = link.send

        def counted(header: pb.Request, *parts: memoryview) -> None:
            sent.append(sum(map(len, parts)))
            send(header, *parts)

        monkeypatch.setattr(link, "send", counted)
        member.push_pull(gradient.flat, gradient.norm)
    trained, statistics = 2 * 50 + 50 * 3 + 3, 4 * 50
    assert sent == [4 * (trained + statistics)]


@pytest.mark.parametrize("xla", ["off", "on"])
def test_gradients_are_those_of_keras_and_steps_leave_frozen_weights_alone(xla: str) -> None:
    model, samples = model_with_a_frozen_layer(), data()
    before, flat = frozen_of(model), read_weights(model)
    function = GradientFunction(model, samples, BATCH)
    function.warm_up(flat, xla)
    found = function(flat, INDICES)
    local = LocalSteps(function, 0.1, most=2)
    local.warm_up(flat, xla)
    assert local(flat, np.concatenate([INDICES, INDICES + BATCH])).finite

    import tensorflow as tf

    with tf.GradientTape() as tape:
        outputs = model(samples.x_train[:BATCH].astype(np.float32) / np.float32(255), training=True)
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(samples.y_train[:BATCH], outputs))
    theirs = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    ours = found.flat[: function.model.layout.trained]
    np.testing.assert_allclose(ours, np.concatenate([np.ravel(each) for each in theirs]), rtol=1e-3, atol=1e-5)
    assert found.loss == pytest.approx(float(loss), rel=1e-4)
    for was, is_now in zip(before, frozen_of(model), strict=True):
        np.testing.assert_array_equal(was, is_now)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras's own, when it saves a model
def test_evaluations_use_them_and_the_saved_model_contains_them(tmp_path: Path) -> None:
    model, samples = model_with_a_frozen_layer(), data()
    flat = read_weights(model) + np.float32(0.125)
    saved: list[Path] = []

    class Pinned:
        def pull(self, pin: int = 0) -> object:
            return type("Pulled", (), {"flat": flat})

    def upload(path: Path) -> None:
        saved.append(tmp_path / "model.keras")
        saved[0].write_bytes(path.read_bytes())

    runner = EvaluationRunner(model, split(samples, 0.0), 1 / 255)
    report = runner.finish(pb.Task(kind=pb.FINISH), Pinned(), upload, lambda: float("inf"))  # type: ignore[arg-type]
    loaded = keras.models.load_model(saved[0])
    for one, other in zip(frozen_of(model), frozen_of(loaded), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(read_weights(loaded), flat)
    again = Evaluator(loaded, 1 / 255)(read_weights(loaded), samples.x_test, samples.y_test)
    assert again.loss == pytest.approx(report.test.loss, rel=1e-5)


def test_workers_with_other_frozen_weights_have_another_checksum() -> None:
    samples = data()
    one, same, other = (model_with_a_frozen_layer(seed) for seed in (1, 1, 2))
    assert data_checksum(samples, one) == data_checksum(samples, same) != samples.checksum
    assert data_checksum(samples, one) != data_checksum(samples, other)
    assert data_checksum(replace(samples, checksum="d" * 64), one) != data_checksum(samples, one)
    write_weights(one, read_weights(one) + 1)
    assert data_checksum(samples, one) == data_checksum(samples, same)  # trained weights do not count
    plain = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(3)])
    assert data_checksum(samples, plain) == samples.checksum
    assert replace(samples, checksum="d" * 64).checksum == data_checksum(replace(samples, checksum="d" * 64), plain)
