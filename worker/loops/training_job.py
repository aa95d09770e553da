"""The interface of a training loop to its job, and its implementation without servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from downpour.protos.errors import Unsupported
from downpour.worker import script


class TrainingJob:
    """What a training loop uses of its job: the rank of this worker, barriers, means and leased samples.

    In a script that was not started with `downpour run` there is one worker, and no method waits.

    Attributes:
        rank: The rank of this worker, from 0.
        size: The number of workers that the job was started with.
    """

    def __init__(self) -> None:
        """Build the job of a process that trains without servers."""
        self.rank, self.size = script.rank(), script.size()
        self._passes = 0

    @property
    def stopping(self) -> bool:
        """Whether the job is asked to end, so that the loop should end after the current batch."""
        return False

    def barrier(self) -> None:
        """Wait until all workers have called `barrier`, and pull the weights of that moment.

        Raises:
            DownpourError: The servers cannot be reached, or the job has ended.
        """

    def mean(self, value: Any) -> Any:
        """Return the mean of a value over all workers.

        Every worker must call this method equally often: each call is also a barrier.

        Args:
            value: A number, or an array of numbers of one shape on all workers.

        Returns:
            A float, or an array `float64` of the same shape.

        Raises:
            DownpourError: The servers cannot be reached, or the job has ended.
        """
        array = np.asarray(value, np.float64)
        return float(array) if array.ndim == 0 else array

    def leased(self, samples: int, batch_size: int = 32) -> Iterator[np.ndarray]:
        """Yield the indices of the batches of this worker in one pass over all samples; a barrier precedes it.

        Each sample belongs to one batch of one worker. A faster worker receives more batches, and those of a worker
        that fails are leased again. The samples of a batch count as used when an optimizer is applied.

        Args:
            samples: The number of samples, the same on all workers.
            batch_size: The number of samples in a batch; the last batch of a lease may be smaller.

        Yields:
            The indices of a batch, `int64[k]`, in a random order that differs between passes.

        Raises:
            Unsupported: There are no samples, or a batch was dropped before an optimizer was applied.
            DownpourError: The servers cannot be reached, or the job has ended.
        """
        check_sizes(samples, batch_size)
        positions = permutation(0, self._passes, samples)
        self._passes += 1
        for start in range(0, samples, batch_size):
            yield positions[start : start + batch_size]


def permutation(seed: int, number: int, samples: int) -> np.ndarray:
    """Return the permutation of all samples in one pass, `int64[samples]`.

    Args:
        seed: The seed of the job.
        number: The number of the pass, from 0.
        samples: The number of samples.
    """
    return np.random.default_rng((seed, number)).permutation(samples)


def check_sizes(samples: int, batch_size: int) -> None:
    """Check the arguments of `TrainingJob.leased`.

    Raises:
        Unsupported: There are no samples, or the batch size is less than 1.
    """
    if samples < 1 or batch_size < 1:
        received = f"{samples} samples, a batch size of {batch_size}"
        raise Unsupported(f"job.leased needs at least 1 sample and a batch size of at least 1. Received: {received}.")
