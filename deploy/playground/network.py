"""A fully connected network with two inputs and one output, as functions of one flat vector; and its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Matrix = NDArray[np.float64]
POINTS = 400  # half of them for the test
EXTENT = 6.0  # the data lie between -EXTENT and EXTENT
SCALE = 1 / 3.0  # of the inputs of the network


class PlaneNetwork:
    """Layers with the activation tanh, and a logistic output: P(y = 1 | x) = σ(f(x)).

    Attributes:
        sizes: The number of units of each layer, with the two inputs and the output.
        size: The number of weights and biases, n.
    """

    def __init__(self, hidden: Sequence[int]) -> None:
        """Describe a network with hidden layers of the given sizes; without any, it is one neuron."""
        self.sizes = (2, *hidden, 1)
        self.size = sum((a + 1) * b for a, b in zip(self.sizes, self.sizes[1:], strict=False))

    def initial(self, seed: int) -> Vector:
        """Return initial weights `float32[n]`: uniform with the variance of Glorot and Bengio (2010), biases 0."""
        random, parts = np.random.default_rng((seed, 1)), []
        for a, b in zip(self.sizes, self.sizes[1:], strict=False):
            limit = (6 / (a + b)) ** 0.5
            parts += [random.uniform(-limit, limit, a * b), np.zeros(b)]
        return np.concatenate(parts).astype(np.float32)

    def layers(self, flat: Vector) -> list[tuple[Matrix, Matrix]]:
        """Return the weights `float64[in, out]` and the biases `float64[out]` of every layer."""
        found, at = [], 0
        for a, b in zip(self.sizes, self.sizes[1:], strict=False):
            weights = flat[at : at + a * b].reshape(a, b).astype(np.float64)
            found.append((weights, flat[at + a * b : at + (a + 1) * b].astype(np.float64)))
            at += (a + 1) * b
        return found

    def outputs(self, flat: Vector, points: Matrix) -> Matrix:
        """Return f(x) `float64[k]` of points `float64[k, 2]`."""
        return self._forward(flat, points)[-1][:, 0]

    def _forward(self, flat: Vector, points: Matrix) -> list[Matrix]:
        activations, layers = [points * SCALE], self.layers(flat)
        for number, (weights, biases) in enumerate(layers):
            z = activations[-1] @ weights + biases
            activations.append(z if number == len(layers) - 1 else np.tanh(z))
        return activations

    def loss(self, flat: Vector, points: Matrix, labels: Matrix) -> float:
        """Return the mean logistic loss; labels are 0 or 1."""
        with np.errstate(all="ignore"):
            z = self.outputs(flat, points)
            return float(np.mean(np.logaddexp(0.0, z) - labels * z))

    def accuracy(self, flat: Vector, points: Matrix, labels: Matrix) -> float:
        """Return the fraction of the points on the right side of the decision boundary."""
        with np.errstate(all="ignore"):
            return float(np.mean((self.outputs(flat, points) > 0) == (labels > 0.5)))

    def gradient(self, flat: Vector, points: Matrix, labels: Matrix) -> Vector:
        """Return the gradient `float32[n]` of the mean loss, by backpropagation."""
        with np.errstate(all="ignore"):
            activations, layers = self._forward(flat, points), self.layers(flat)
            z = activations[-1][:, 0]
            delta = ((1 / (1 + np.exp(-np.clip(z, -500, 500))) - labels) / len(labels))[:, None]
            parts: list[Matrix] = []
            for number in range(len(layers) - 1, -1, -1):
                parts = [(activations[number].T @ delta).ravel(), delta.sum(0), *parts]
                if number:
                    delta = (delta @ layers[number][0].T) * (1 - activations[number] ** 2)
            return np.concatenate(parts).astype(np.float32)


def _circle(random: np.random.Generator, count: int) -> tuple[Matrix, Matrix]:
    labels = np.arange(count) % 2
    radius = np.where(labels, random.uniform(0, 2.5, count), random.uniform(3.5, 5, count))
    angle = random.uniform(0, 2 * np.pi, count)
    return np.stack((radius * np.sin(angle), radius * np.cos(angle)), 1), labels.astype(float)


def _corners(random: np.random.Generator, count: int, table: Sequence[int]) -> tuple[Matrix, Matrix]:
    """Return points near four corners, which have the labels of a truth table; both labels are equally frequent."""
    signs = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    labels, of_table = np.arange(count) % 2, np.array(table)
    ordered = [np.resize(signs[of_table == label], (count, 2)) for label in (0, 1)]
    chosen = np.where(labels[:, None], *(each[np.arange(count) // 2] for each in reversed(ordered)))
    return 3.0 * chosen + random.uniform(-1.2, 1.2, (count, 2)), labels.astype(float)


def _and(random: np.random.Generator, count: int) -> tuple[Matrix, Matrix]:
    return _corners(random, count, (0, 0, 0, 1))


def _or(random: np.random.Generator, count: int) -> tuple[Matrix, Matrix]:
    return _corners(random, count, (0, 1, 1, 1))


def _xor(random: np.random.Generator, count: int) -> tuple[Matrix, Matrix]:
    points = random.uniform(-5, 5, (count, 2))
    points += np.sign(points) * 0.3
    return points, (points[:, 0] * points[:, 1] >= 0).astype(float)


def _gauss(random: np.random.Generator, count: int) -> tuple[Matrix, Matrix]:
    labels = np.arange(count) % 2
    return np.where(labels, 2.0, -2.0)[:, None] + random.normal(0, 1, (count, 2)), labels.astype(float)


def _spiral(random: np.random.Generator, count: int) -> tuple[Matrix, Matrix]:
    labels, place = np.arange(count) % 2, (np.arange(count) // 2) / (count // 2)
    angle = 1.75 * place * 2 * np.pi + labels * np.pi
    return (5 * place)[:, None] * np.stack((np.sin(angle), np.cos(angle)), 1), labels.astype(float)


DATA: dict[str, Callable[[np.random.Generator, int], tuple[Matrix, Matrix]]] = {
    "circle": _circle, "and": _and, "or": _or, "xor": _xor, "gauss": _gauss, "spiral": _spiral,
}  # fmt: skip


def data_of(name: str, noise: float, seed: int) -> tuple[Matrix, Matrix]:
    """Return `POINTS` points `float64[k, 2]` in random order and their labels, 0 or 1.

    Args:
        name: A name in `DATA`.
        noise: The standard deviation of what is added to the points, as a fraction of the extent, from 0 to 0.5.
        seed: The seed of the data.
    """
    random = np.random.default_rng((seed, 0))
    points, labels = DATA[name](random, POINTS)
    points = points + random.normal(0, max(1e-9, noise * EXTENT / 2), points.shape)
    order = random.permutation(len(points))
    return points[order], labels[order]
