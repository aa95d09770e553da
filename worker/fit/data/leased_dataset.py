"""Data whose samples the servers lease to the workers, so that each sample of an epoch is used exactly once."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from downpour.protos.errors import Unsupported
from downpour.worker import script
from downpour.worker.fit.data.leased_batches import LeasedArrays, LeasedSamples


class LeasedDataset(keras.utils.PyDataset):
    """A dataset for `model.fit` whose samples the servers lease to the workers.

        model.fit(LeasedDataset(x, y, batch_size=32), epochs=5)

    In every epoch each sample is used exactly once over all workers. A faster worker trains on more samples, the
    unused samples of a worker that fails are leased to others, and a worker that joins late receives leases like the
    rest. Each epoch has a permutation of its own, derived from the seed of the job. In a script that was not started
    with `downpour run`, it returns all samples, permuted in each epoch.

    Attributes:
        samples: The number of samples, the length of all arrays.
        batch_size: The number of samples in a batch.
    """

    def __init__(self, x: Any, y: Any = None, batch_size: int = 32) -> None:
        """Build a dataset of arrays, which are not copied.

        Args:
            x: An array of inputs, `[n, ...]`, or a dict, list or tuple of such arrays.
            y: An array of targets, `[n, ...]`, or a structure of such arrays; None if the model has none.
            batch_size: The number of samples in a batch; the last batch of a lease may be smaller.

        Raises:
            Unsupported: The arrays do not all have one length.
            Unsupported: The batch size is less than 1.
        """
        super().__init__()
        self._arrays = keras.tree.map_structure(np.asarray, (x,) if y is None else (x, y))
        lengths = {len(array) for array in keras.tree.flatten(self._arrays)}
        if len(lengths) != 1 or batch_size < 1:
            received = f"{sorted(lengths)}, in batches of {batch_size}"
            raise Unsupported(f"leased arrays must have one length. Received: {received}.")
        self.samples, self.batch_size = lengths.pop(), batch_size
        self._epoch = 0
        self._permutation = (-1, np.empty(0, np.int64))

    @property
    def arrays(self) -> Any:
        """The arrays of all samples, in a tuple of inputs and targets."""
        return self._arrays

    def epoch_samples(self, steps: int | None) -> int:
        """Return the number of samples in an epoch of all workers.

        Args:
            steps: The number of batches in an epoch, over all workers; None for all samples.

        Raises:
            Unsupported: There are not so many batches.
        """
        if steps is None:
            return self.samples
        if not 1 <= steps <= self.num_batches:
            raise Unsupported(
                f"steps_per_epoch must be at most the number of batches of a LeasedDataset, {self.num_batches}. "
                f"Received: {steps}. Leave it out, or use more epochs."
            )
        return min(steps * self.batch_size, self.samples)

    def peek(self) -> tuple[Any, LeasedDataset]:
        """Return a batch of at most two samples, and this dataset."""
        return self._rows(np.arange(min(2, self.samples))), self

    def leased_arrays(self, steps: int | None, seed: tuple[int, int]) -> LeasedArrays:
        """Return the arrays as data whose batches are leased to a worker.

        Args:
            steps: The number of batches in an epoch, over all workers, which are drawn anew; None for all samples.
            seed: The seed of the job, and the number of the call of `fit`, from 1.

        Raises:
            Unsupported: There are not so many batches.
        """
        used = self.epoch_samples(steps)
        return LeasedArrays(self._arrays, LeasedSamples(self.samples, self.batch_size, seed=seed, drawn=used))

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch, over all workers."""
        return -(-self.samples // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        """Return a batch of the current permutation, in a script that was not started with `downpour run`.

        Args:
            index: The number of the batch within the epoch, from 0.

        Raises:
            Unsupported: A training loop of several workers reads it, each of which would train on all samples.
        """
        if script.in_loop and script.size() > 1:
            raise Unsupported(
                "within downpour.training, samples must be divided among the workers by the loop. Received: a batch of "
                "a LeasedDataset, which model.fit divides. Iterate over job.leased(len(x), batch_size), or read the "
                "batches of job.rank only from an array."
            )
        start = index * self.batch_size
        return self._rows(self._order(0)[start : start + self.batch_size])

    def on_epoch_end(self) -> None:
        """Draw another permutation for the next epoch."""
        self._epoch += 1

    def _rows(self, positions: np.ndarray) -> Any:
        return keras.tree.map_structure(lambda array: array[positions], self._arrays)

    def _order(self, seed: int) -> np.ndarray:
        if self._permutation[0] != self._epoch:
            self._permutation = self._epoch, np.random.default_rng((seed, self._epoch)).permutation(self.samples)
        return self._permutation[1]
