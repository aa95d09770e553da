"""Integer gradients in place of a model: 1 for each sample of a batch on every shard.

`bench.world.checks.integer_weights` states what the weights of such a job count.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from downpour.bench.world.checks.integer_weights import initial_weights, model_file
from downpour.bench.world.system.paths import VirtualPath
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import TRAINED, Layout
from downpour.protos.system import threads
from downpour.worker.exchange.client import Client
from downpour.worker.plan.accumulator import Compute, ManySteps
from downpour.worker.train.computation import Examiner

EVALUATION_S = 0.02


@dataclass(frozen=True)
class IntegerGradient:
    """The gradient of one batch."""

    vector: np.ndarray
    norm: float
    loss: float
    correct: int


@dataclass
class WorkerBehaviour:
    """The behaviour of a simulated worker: its speed, its failures and its callbacks.

    Attributes:
        step_s: The mean duration of a step, in seconds.
        seen: A callback that receives the weights of every gradient.
        evaluated: A callback that receives the epoch and the weights of every evaluation.
        hang_at_step: The number of the step that hangs; 0 for none.
        hang_s: The duration of that step, in seconds.
        nan_at_step: The number of the step whose gradient is not finite; 0 for none.
        model_padding_bytes: The size by which the uploaded model exceeds its weights.
        origin: The amount by which the worker's initial weights are larger than `initial_weights`, an integer.
        checks_weights: Whether the worker checks that its weights do not change during a step.
    """

    step_s: float
    seen: Callable[[np.ndarray], None]
    evaluated: Callable[[int, np.ndarray], None]
    hang_at_step: int = 0
    hang_s: float = 0.0
    nan_at_step: int = 0
    model_padding_bytes: int = 0
    origin: int = 0
    checks_weights: bool = True


class IntegerComputation:
    """Replaces a model and its data; see `downpour.worker.train.computation.Computation`."""

    def __init__(self, job: pb.JobDescription, samples: int, behaviour: WorkerBehaviour, rng: random.Random) -> None:
        """Create the computation of one worker process.

        Args:
            job: The description of the job.
            samples: The number of samples in an epoch.
            behaviour: The speed and the failures of the worker.
            rng: The source of the random durations of its steps.
        """
        self.samples, self._shards, self._behaviour, self._random = samples, job.shards, behaviour, rng
        self.layout = Layout.of([("w", (job.shards * samples,), TRAINED)])
        self.initial = initial_weights(job.shards, samples) + np.float32(behaviour.origin)
        self.examiner: Examiner = IntegerExaminer(behaviour)
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
        """Wait for the virtual time of a compilation, at most 0.2 s."""
        threads.sleep(self._random.random() * 0.2)
        return {}

    def _gradient(self, flat: np.ndarray, indices: np.ndarray, seed: Sequence[int], step: int) -> IntegerGradient:
        behaviour = self._behaviour
        before = flat.copy() if behaviour.checks_weights else flat
        self._steps += 1
        seconds = behaviour.step_s * self._random.uniform(0.5, 1.5)
        threads.sleep(behaviour.hang_s if self._steps == behaviour.hang_at_step else seconds)
        if behaviour.checks_weights and not np.array_equal(before, flat):
            raise AssertionError("pulled weights changed while a gradient was computed from them")
        behaviour.seen(flat)
        vector = np.zeros(self.layout.size, np.float32)
        vector.reshape(self._shards, -1)[:, indices] = 1.0
        norm = math.nan if self._steps == behaviour.nan_at_step else math.sqrt(self._shards * len(indices))
        return IntegerGradient(vector, norm, 1.0, 0)


class IntegerExaminer:
    """Evaluates and uploads weights; see `downpour.worker.train.computation.Examiner`."""

    def __init__(self, behaviour: WorkerBehaviour) -> None:
        """Create the evaluations of one worker."""
        self._behaviour = behaviour

    def validate(self, task: pb.Task, client: Client, deadline: Callable[[], float]) -> pb.ReportRequest | None:
        """Report on the pinned weights."""
        flat = client.pull(task.pin).flat
        self._behaviour.evaluated(task.epoch, flat)
        threads.sleep(EVALUATION_S)
        result = pb.Evaluation(samples=4, loss=float(flat.sum(dtype=np.float64)), accuracy=0.5)
        return pb.ReportRequest(kind=pb.VALIDATE, epoch=task.epoch, validation=result)

    def finish(
        self, task: pb.Task, client: Client, upload: Callable[[Path], None], deadline: Callable[[], float]
    ) -> pb.ReportRequest:
        """Upload the pinned weights and report on them."""
        flat = client.pull(task.pin).flat
        path = VirtualPath("/model")
        path.write_bytes(model_file(flat, self._behaviour.model_padding_bytes))
        upload(cast(Path, path))
        threads.sleep(EVALUATION_S)
        result = pb.Evaluation(samples=4, loss=1.0, accuracy=0.5)
        request = pb.ReportRequest(kind=pb.FINISH, epoch=task.epoch, validation=result)
        request.test.CopyFrom(result)
        return request
