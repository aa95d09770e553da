"""The training task of the peers in PyTorch: flags, model, batches and metrics, equal to those of the others.

The models are those of `worker.catalog.models`, with the same layers, initializers and loss.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from downpour.worker.catalog.datasets import Dataset, load

WARMUP_STEPS = 40  # of all workers together, before the clock starts
Batch = tuple[Any, Any]


class StepMetrics(NamedTuple):
    """The sum of the losses of a batch, the number of correct predictions, and the number of samples."""

    loss: float
    correct: int
    samples: int


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the flags of the training task."""
    made = argparse.ArgumentParser(prog=prog, description=description)
    made.add_argument("--data", required=True, help="a dataset's name, or an .npz file")
    made.add_argument("--model", choices=list(NETWORKS), default="sigmoid100")
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--epochs", type=int, default=1)
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--learning-rate", type=float, default=0.1)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--threads", type=int, default=1, help="threads of each process")
    return made


def sigmoid100(classes: int) -> Any:
    """Return the reference model, which returns logits, with Keras's default initializers."""
    from torch import nn

    hidden, output = nn.Linear(784, 100), nn.Linear(100, classes)
    for layer in (hidden, output):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), hidden, nn.Sigmoid(), output)


def cnn(classes: int) -> Any:
    """Return the convolutional network, which returns logits, with the initializers of its Keras form."""
    from torch import nn

    convolution, output = nn.Conv2d(1, 64, 3), nn.Linear(100, classes)
    hidden = [nn.Linear(64 * 13 * 13, 200), nn.Linear(200, 100)]
    for layer in (convolution, output):
        nn.init.xavier_uniform_(layer.weight)
    for layer in hidden:
        nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5 / 0.8796, a=-2.0, b=2.0)
    for layer in (convolution, output, *hidden):
        nn.init.zeros_(layer.bias)
    norm = nn.BatchNorm2d(64, eps=1e-3, momentum=0.01)
    head = [nn.Flatten(), hidden[0], nn.SELU(), hidden[1], nn.SELU(), output]
    return nn.Sequential(nn.Unflatten(1, (1, 28)), convolution, nn.MaxPool2d(2), norm, *head)


NETWORKS = {"sigmoid100": sigmoid100, "cnn": cnn}


def network(flags: argparse.Namespace, dataset: Dataset) -> Any:
    """Return the model of a task; a seed determines its weights."""
    import torch

    torch.set_num_threads(flags.threads)
    torch.manual_seed(flags.seed)
    return NETWORKS[flags.model](dataset.classes)


def batches(flags: argparse.Namespace, dataset: Dataset, worker: int) -> Iterator[Batch]:
    """Yield batches endlessly from memory, in an order of its own for each worker and epoch."""
    import torch

    x = torch.from_numpy(dataset.x_train * np.float32(dataset.scale))
    y = torch.from_numpy(dataset.y_train.astype(np.int64))
    draw = np.random.default_rng((flags.seed, worker))
    while True:
        order = torch.from_numpy(draw.permutation(len(y)))
        for chosen in order[: len(y) // flags.batch_size * flags.batch_size].split(flags.batch_size):
            yield x[chosen], y[chosen]


def metrics_of(logits: Any, y: Any, loss: Any) -> StepMetrics:
    """Return the metrics of a batch from its logits and its mean loss."""
    return StepMetrics(loss.item() * len(y), int((logits.detach().argmax(1) == y).sum()), len(y))


def steps_of(flags: argparse.Namespace, dataset: Dataset) -> int:
    """Return the number of steps of all workers together."""
    return len(dataset.y_train) // flags.batch_size * flags.epochs


def result(flags: argparse.Namespace, by_worker: list[list[StepMetrics]], wall_s: float) -> dict[str, Any]:
    """Return what a competitor reports; loss and accuracy are those of the last epoch's share of every worker."""
    last = [step for steps in by_worker for step in steps[len(steps) * (flags.epochs - 1) // flags.epochs :]]
    samples, seen = sum(step.samples for steps in by_worker for step in steps), sum(step.samples for step in last)
    return {
        "samples": samples,
        "wall_s": wall_s,
        "samples_per_s": samples / wall_s,
        "loss": sum(step.loss for step in last) / seen,
        "accuracy": sum(step.correct for step in last) / seen,
    }


def dataset_of(flags: argparse.Namespace) -> Dataset:
    """Return the dataset of a task."""
    return load(flags.data)
