"""The parts of `validation_data` that the workers evaluate, each of whole batches."""

from __future__ import annotations

from typing import Any

import keras
from keras.src.trainers.data_adapters.data_adapter_utils import check_data_cardinality

from downpour.protos.errors import Unsupported
from downpour.worker.fit.data.data_parts import PyDatasetPart, rows_of
from downpour.worker.fit.data.leased_batches import is_array_data
from downpour.worker.fit.data.leased_py_dataset import is_finite

HOOKS = ("on_epoch_begin", "on_epoch_end")  # of a PyDataset, which may change its batches
BATCH_SIZE = 32  # Keras's default
OMIT = "Leave --spread-validation out, so that worker 0 evaluates all of them."


class ValidationParts:
    """The validation data of one call of `fit`, divided among the workers.

    Batches are those of one process, and each belongs to one part. A worker other than 0 has no part if there are fewer
    batches.

    Attributes:
        batch_size: The number of samples in a batch of arrays.
        frequency: The epochs after which the data are evaluated, as the argument `validation_freq` of `fit`.
    """

    def __init__(
        self, data: Any, batch_size: int | None, steps: int | None, workers: int, frequency: int | list[int] = 1
    ) -> None:
        """Check data, none of which is copied or made yet.

        Args:
            data: The argument `validation_data` of `fit`.
            batch_size: The number of samples in a batch; None for Keras's default.
            steps: The argument `validation_steps`.
            workers: The number of workers.
            frequency: The argument `validation_freq`.

        Raises:
            Unsupported: The data cannot be divided, because they can only be read forward or are cut off by steps.
            ValueError: The arrays have different numbers of samples.
        """
        self._workers, self.batch_size, self.frequency = workers, batch_size or BATCH_SIZE, frequency
        if steps is not None:
            raise Unsupported(
                "with --spread-validation every sample of validation_data must be evaluated after an epoch. Received: "
                f"validation_steps={steps}. {OMIT}"
            )
        self._dataset = data if is_finite(data) else None
        self._arrays = () if self._dataset is not None else keras.utils.unpack_x_y_sample_weight(data)
        if self._dataset is None and not is_array_data(*self._arrays):
            raise Unsupported(
                "with --spread-validation, validation_data must be arrays, tensors, or a PyDataset of known length. "
                f"Received: {type(data).__name__}. {OMIT}"
            )
        if self._dataset is None:
            check_data_cardinality([each for each in self._arrays if each is not None])
        changed = [
            name for name in HOOKS if getattr(type(data), name, None) is not getattr(keras.utils.PyDataset, name)
        ]
        if self._dataset is not None and changed:
            raise Unsupported(
                "with --spread-validation a PyDataset of validation data must have the same batches on all workers in "
                f"every epoch. Received: one that defines {changed[0]}. {OMIT}"
            )

    def has_part(self, rank: int) -> bool:
        """Return whether a worker evaluates a part: worker 0 always, another one if it has a batch."""
        if not 0 < rank < self._workers:  # a worker that joined the job later has none
            return not rank
        return rank < self._dataset.num_batches if self._dataset is not None else len(self._rows(rank)) > 0

    def _rows(self, rank: int) -> range:
        samples = next(int(array.shape[0]) for array in keras.tree.flatten(self._arrays) if array is not None)
        batches = -(-samples // self.batch_size)
        start, stop = (-(-batches * place // self._workers) * self.batch_size for place in (rank, rank + 1))
        return range(samples)[start:stop]

    def part(self, rank: int) -> Any:
        """Return the validation data of a worker, as `fit` takes them; None if it has no part."""
        if not self.has_part(rank):
            return None
        if self._dataset is not None:
            return PyDatasetPart(self._dataset, rank, self._workers)
        found = self._rows(rank)
        rows = slice(found.start, found.stop)
        return tuple(
            keras.tree.map_structure(lambda a: None if a is None else rows_of(a, rows), each) for each in self._arrays
        )

    def arguments(self, rank: int) -> tuple[Any, Any, Any]:
        """Return the part of a worker as the arguments x, y and sample_weight of `evaluate`; x is None without."""
        part = self.part(rank)
        if part is None or self._dataset is not None:
            return part, None, None
        x, y, weight = keras.utils.unpack_x_y_sample_weight(part)
        return x, y, weight
