"""Loss and accuracy of flat weights on a split of the data, and the coordinator's tasks that ask for them."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from protos import parameter_server_pb2 as pb
from worker.client import Client
from worker.datasets import Split
from worker.flat_model import FlatModel, correct_of, write_weights

BATCH = 250  # so few that a slow model, too, has looked at the clock in time


def never() -> float:
    """The deadline of what may take its time."""
    return math.inf


class Evaluator:
    """Evaluates a model at any flat weights."""

    def __init__(self, model: keras.Model, scale: float) -> None:
        """Traces nothing yet.

        Args:
            model: Built; its own weights are not used.
            scale: Factor on the samples.
        """
        self._model, self._scale = FlatModel(model), scale
        self._sums = tf.function(self._sums_of, autograph=False, reduce_retracing=True)

    def __call__(
        self, flat: np.ndarray, x: np.ndarray, y: np.ndarray, deadline: Callable[[], float] = never
    ) -> pb.Evaluation:
        """Mean loss and accuracy at `flat`, `float32[n + m]`; zeros where there are no samples.

        Args:
            flat: Weights.
            x: Samples.
            y: Targets.
            deadline: Time (monotonic) past which no further samples are looked at.
        """
        loss = correct = 0.0
        weights, seen = tf.convert_to_tensor(flat), 0
        for start in range(0, len(x), BATCH):
            if time.monotonic() >= deadline():
                break
            chunk = slice(start, start + BATCH)
            sums = self._sums(weights, tf.constant(x[chunk]), tf.constant(y[chunk])).numpy()
            loss, correct = loss + float(sums[0]), correct + float(sums[1])
            seen = min(start + BATCH, len(x))
        count = max(seen, 1)
        return pb.Evaluation(samples=seen, loss=loss / count, accuracy=correct / count)

    def _sums_of(self, flat: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        outputs = self._model.outputs(flat, tf.cast(x, tf.float32) * self._scale)
        count = tf.cast(tf.shape(x)[0], tf.float32)
        return tf.stack([self._model.losses(y, outputs) * count, correct_of(y, outputs)])


class Examiner:
    """Does evaluation tasks, on weights that the coordinator has pinned."""

    def __init__(self, model: keras.Model, split: Split, scale: float) -> None:
        """Evaluates nothing yet.

        Args:
            model: Built; it gets the last weights.
            split: The data.
            scale: Factor on the samples.
        """
        self._model, self._split, self._evaluate = model, split, Evaluator(model, scale)

    def validate(self, task: pb.Task, client: Client, deadline: Callable[[], float]) -> pb.ReportRequest | None:
        """The result on the validation split; None if the time was up before."""
        result = self._validation(client.pull(task.pin).flat, deadline)
        return pb.ReportRequest(kind=pb.VALIDATE, epoch=task.epoch, validation=result) if result else None

    def finish(
        self, task: pb.Task, client: Client, upload: Callable[[Path], None], deadline: Callable[[], float]
    ) -> pb.ReportRequest:
        """Uploads the model with the last weights; the results on both splits, as far as there is time for them."""
        flat, split = client.pull(task.pin).flat, self._split
        self._save(flat, upload)
        request = pb.ReportRequest(kind=pb.FINISH, epoch=task.epoch)
        request.test.CopyFrom(self._evaluate(flat, split.x_test, split.y_test, deadline))
        if validation := self._validation(flat, deadline):
            request.validation.CopyFrom(validation)
        return request

    def _save(self, flat: np.ndarray, upload: Callable[[Path], None]) -> None:
        write_weights(self._model, flat)
        with tempfile.TemporaryDirectory(prefix="downpour-") as folder:
            path = Path(folder) / "model.keras"
            if self._model.optimizer is not None:  # Keras warns when it loads an optimizer that was saved unbuilt
                self._model.optimizer.build(self._model.trainable_variables)
            self._model.save(path)
            upload(path)

    def _validation(self, flat: np.ndarray, deadline: Callable[[], float]) -> pb.Evaluation | None:
        """The result on the whole split; None if there is none, or no time for all of it."""
        x, y = self._split.x_validation, self._split.y_validation
        result = self._evaluate(flat, x, y, deadline)
        return result if len(x) and result.samples == len(x) else None
