"""The evaluation tasks of a worker, and the upload of the trained model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.catalog.datasets import Split
from downpour.worker.compute.evaluate import Evaluator
from downpour.worker.compute.flat_model import write_weights
from downpour.worker.exchange.client import Client


class EvaluationRunner:
    """Evaluates weights that the coordinator has pinned."""

    def __init__(self, model: keras.Model, split: Split, scale: float) -> None:
        """Create a runner of the evaluations that the coordinator assigns.

        Args:
            model: A built model, to which the last weights are assigned.
            split: The validation and test data.
            scale: The factor by which samples are multiplied.
        """
        self._model, self._split, self._evaluate = model, split, Evaluator(model, scale)

    def validate(self, task: pb.Task, client: Client, deadline: Callable[[], float]) -> pb.ReportRequest | None:
        """Return the result on the validation data; None if it was not complete by the deadline."""
        result = self._validation(client.pull(task.pin).flat, deadline)
        return pb.ReportRequest(kind=pb.VALIDATE, epoch=task.epoch, validation=result) if result else None

    def finish(
        self, task: pb.Task, client: Client, upload: Callable[[Path], None], deadline: Callable[[], float]
    ) -> pb.ReportRequest:
        """Upload the model with the last weights; return the results on both splits, as far as the deadline permits."""
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
        """Return the result on the validation data; None if there are none, or not enough time."""
        x, y = self._split.x_validation, self._split.y_validation
        result = self._evaluate(flat, x, y, deadline)
        return result if len(x) and result.samples == len(x) else None
