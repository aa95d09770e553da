"""Integer gradients in place of a model: the weights show how often every sample was applied, bit by bit.

A job over S samples and K shards trains `float32[K * S]`, so that every shard owns one weight for each sample. The
gradient of a batch is 1 for each of its samples on every shard. With plain gradient descent, a learning rate that is a
power of two, and integer initial weights, every update is exact: `(w0 - w) / rate` counts the applications.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from downpour.bench.world.system.paths import VirtualPath
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import TRAINED, Layout
from downpour.protos.system import threads
from downpour.worker.exchange.client import Client
from downpour.worker.plan.accumulator import Compute, ManySteps
from downpour.worker.train.computation import Examiner

if TYPE_CHECKING:
    from downpour.bench.world.job import WorkerHabits

RATE = 0.125
EVALUATION_S = 0.02
MODEL_HEADER = b"model"


def initial_weights(shards: int, samples: int) -> np.ndarray:
    """Return integer weights, `float32[shards * samples]`."""
    return (np.arange(shards * samples) % 17 - 8).astype(np.float32)


def applications(weights: np.ndarray, shards: int) -> np.ndarray:
    """Return how often each sample was applied on each shard, `float64[shards, samples]`, exact for whole updates."""
    start = initial_weights(shards, weights.size // shards).astype(np.float64)
    return ((start - weights) / RATE).reshape(shards, -1)


def model_file(flat: np.ndarray, padding_bytes: int) -> bytes:
    """Return the content of the model that a worker uploads."""
    return MODEL_HEADER + flat.tobytes() + bytes(padding_bytes)


def weights_in(model: bytes, count: int) -> np.ndarray:
    """Return the weights, `float32[count]`, of an uploaded model."""
    return np.frombuffer(model, np.float32, count, len(MODEL_HEADER))


@dataclass(frozen=True)
class IntegerGradient:
    """The gradient of one batch."""

    vector: np.ndarray
    norm: float
    loss: float
    correct: int


class IntegerComputation:
    """Takes the place of a model and its data; see `downpour.worker.train.computation.Computation`."""

    def __init__(self, job: pb.JobDescription, samples: int, habits: WorkerHabits, rng: random.Random) -> None:
        """Create the computation of one worker process.

        Args:
            job: The description of the job.
            samples: The number of samples in an epoch.
            habits: How fast the worker is, and when it fails.
            rng: The source of its delays.
        """
        self.samples, self._shards, self._habits, self._random = samples, job.shards, habits, rng
        self.layout = Layout.of([("w", (job.shards * samples,), TRAINED)])
        self.initial = initial_weights(job.shards, samples)
        self.examiner: Examiner = IntegerExaminer(habits)
        self.one: Compute = self._gradient
        self.many: ManySteps | None = None
        self._steps = 0

    def registration(self) -> pb.RegisterRequest:
        """Return the request to register."""
        data = pb.DatasetInfo(
            name="integers", checksum="c" * 64, train_samples=self.samples, validation_samples=4, test_samples=4
        )
        return pb.RegisterRequest(layout=self.layout.to_proto(), data=data)

    def warm_up(self) -> dict[str, str]:
        """Take the time of a compilation."""
        threads.sleep(self._random.random() * 0.2)
        return {}

    def _gradient(self, flat: np.ndarray, indices: np.ndarray, seed: Sequence[int], step: int) -> IntegerGradient:
        habits = self._habits
        before = flat.copy() if habits.checks_weights else flat
        self._steps += 1
        seconds = habits.step_s * self._random.uniform(0.5, 1.5)
        threads.sleep(habits.hang_s if self._steps == habits.hang_at_step else seconds)
        if habits.checks_weights and not np.array_equal(before, flat):
            raise AssertionError("pulled weights changed while a gradient was computed from them")
        habits.seen(flat)
        vector = np.zeros(self.layout.size, np.float32)
        vector.reshape(self._shards, -1)[:, indices] = 1.0
        norm = math.nan if self._steps == habits.nan_at_step else math.sqrt(self._shards * len(indices))
        return IntegerGradient(vector, norm, 1.0, 0)


class IntegerExaminer:
    """Evaluates and uploads weights; see `downpour.worker.train.computation.Examiner`."""

    def __init__(self, habits: WorkerHabits) -> None:
        """Create the evaluations of one worker."""
        self._habits = habits

    def validate(self, task: pb.Task, client: Client, deadline: Callable[[], float]) -> pb.ReportRequest | None:
        """Report on the pinned weights."""
        flat = client.pull(task.pin).flat
        self._habits.evaluated(task.epoch, flat)
        threads.sleep(EVALUATION_S)
        result = pb.Evaluation(samples=4, loss=float(flat.sum()), accuracy=0.5)
        return pb.ReportRequest(kind=pb.VALIDATE, epoch=task.epoch, validation=result)

    def finish(
        self, task: pb.Task, client: Client, upload: Callable[[Path], None], deadline: Callable[[], float]
    ) -> pb.ReportRequest:
        """Upload the pinned weights and report on them."""
        flat = client.pull(task.pin).flat
        path = VirtualPath("/model")
        path.write_bytes(model_file(flat, self._habits.model_padding_bytes))
        upload(cast(Path, path))
        threads.sleep(EVALUATION_S)
        result = pb.Evaluation(samples=4, loss=1.0, accuracy=0.5)
        request = pb.ReportRequest(kind=pb.FINISH, epoch=task.epoch, validation=result)
        request.test.CopyFrom(result)
        return request
