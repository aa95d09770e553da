"""A parameter server of Ray actors, and the result of its training as one JSON line.

`python -m downpour.bench.peers.ray_actors --data FILE.npz --model sigmoid100`: a competitor of `training.baselines`.
It has the form of the asynchronous parameter server in Ray's documentation (Ray Core, examples, "Parameter Server"):
an actor holds the model and its optimizer, each worker is an actor that computes a gradient from weights, and the
driver waits with `ray.wait` for the next gradient, lets the server apply it, and gives the new weights to that worker.
Weights and gradients are passed as references, so that they go through Ray's object store and not through the driver.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from downpour.bench.peers import torch_task

STORE_BYTES = 512 << 20
STEP_TIMEOUT_S = 120.0  # for an answer of an actor, which loads PyTorch before its first one


class ParameterActor:
    """The actor that holds the weights and applies gradients with PyTorch's optimizer."""

    def __init__(self, flags: argparse.Namespace) -> None:
        """Build the model, its optimizer, and a copy of the initial weights for `reset`."""
        import torch

        self._flags, self._dataset = flags, torch_task.dataset_of(flags)
        self._model = torch_task.network(flags, self._dataset)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=flags.learning_rate)
        self._initial = self.weights()

    def weights(self) -> list[Any]:
        """Return a copy of the weights, as one array for each parameter."""
        return [parameter.detach().numpy().copy() for parameter in self._model.parameters()]

    def apply(self, gradients: Sequence[Any]) -> list[Any]:
        """Apply one gradient, and return the new weights."""
        import torch

        for parameter, gradient in zip(self._model.parameters(), gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        self._optimizer.step()
        return self.weights()

    def reset(self) -> None:
        """Restore the initial weights."""
        import torch

        with torch.no_grad():
            for parameter, initial in zip(self._model.parameters(), self._initial, strict=True):
                parameter.copy_(torch.tensor(initial))


class GradientWorker:
    """An actor that computes gradients on its own batches."""

    def __init__(self, flags: argparse.Namespace, number: int) -> None:
        """Load the data and build a model of the same form."""
        dataset = torch_task.dataset_of(flags)
        self._model = torch_task.network(flags, dataset)
        self._batches = torch_task.batches(flags, dataset, number)
        self._metrics: list[torch_task.StepMetrics] = []

    def gradients(self, weights: Sequence[Any]) -> list[Any]:
        """Return the gradient of the next batch at `weights`."""
        import torch

        with torch.no_grad():
            for parameter, given in zip(self._model.parameters(), weights, strict=True):
                parameter.copy_(torch.tensor(given))
        x, y = next(self._batches)
        self._model.zero_grad()
        logits = self._model(x)
        loss = torch.nn.functional.cross_entropy(logits, y)
        loss.backward()
        self._metrics.append(torch_task.metrics_of(logits, y, loss))
        return [parameter.grad.numpy() for parameter in self._model.parameters()]

    def take_metrics(self) -> list[torch_task.StepMetrics]:
        """Return the metrics of the steps since the last call."""
        taken, self._metrics = self._metrics, []
        return taken


def train(flags: argparse.Namespace) -> dict[str, Any]:
    """Run a warm-up and then the training on a Ray cluster of this process's own, and return the result."""
    import ray

    ray.init(
        address="local", num_cpus=flags.workers + 1, include_dashboard=False, object_store_memory=STORE_BYTES,
        log_to_driver=False, logging_level="ERROR",
    )  # fmt: skip
    try:
        server = ray.remote(num_cpus=1)(ParameterActor).remote(flags)
        actor = ray.remote(num_cpus=1)(GradientWorker)
        workers = [actor.remote(flags, number) for number in range(flags.workers)]
        run(server, workers, torch_task.WARMUP_STEPS * flags.workers)
        ray.get([server.reset.remote(), *(worker.take_metrics.remote() for worker in workers)], timeout=STEP_TIMEOUT_S)
        wall_s = run(server, workers, torch_task.steps_of(flags, torch_task.dataset_of(flags)))
        metrics = ray.get([worker.take_metrics.remote() for worker in workers], timeout=STEP_TIMEOUT_S)
    finally:
        ray.shutdown()
    return torch_task.result(flags, metrics, wall_s)


def run(server: Any, workers: Sequence[Any], steps: int) -> float:
    """Make a number of asynchronous steps, and return their time in s.

    Raises:
        TimeoutError: No gradient arrives within `STEP_TIMEOUT_S`.
    """
    import ray

    start = time.perf_counter()
    weights = server.weights.remote()
    first = workers[:steps]
    pending = {worker.gradients.remote(weights): worker for worker in first}
    asked = len(first)
    while pending:
        ready, _ = ray.wait(list(pending), timeout=STEP_TIMEOUT_S)
        if not ready:
            raise TimeoutError(
                f"a gradient must arrive within {STEP_TIMEOUT_S:g} s. Received: none of {len(pending)} that were "
                "requested. Look at Ray's logs of the actors, and train with fewer workers if they lack memory."
            )
        worker = pending.pop(ready[0])
        weights = server.apply.remote(ready[0])
        if asked < steps:
            pending[worker.gradients.remote(weights)] = worker
            asked += 1
    ray.get(weights, timeout=STEP_TIMEOUT_S)
    return time.perf_counter() - start


def main(argv: list[str]) -> int:
    """Train, print the result, and return 0."""
    flags = torch_task.parser("python -m downpour.bench.peers.ray_actors", "Ray's parameter server.").parse_args(argv)
    print(json.dumps(train(flags)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
