"""Generated datasets: truth tables, and samples of a plane with noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

COPIES = 256  # of each of the four rows of a truth table, in the training set
NOISE = 0.1  # standard deviation of the noise of the plane

Arrays = dict[str, np.ndarray]


def truth_table(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Arrays:
    """Return the truth table of a function of two bits: four rows for test, `COPIES` of each for training."""
    bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    truth = function(bits[:, 0] > 0, bits[:, 1] > 0).astype(np.int64)
    order = np.random.default_rng(0).permutation(4 * COPIES)
    return {
        "x_train": np.tile(bits, (COPIES, 1))[order], "y_train": np.tile(truth, COPIES)[order],
        "x_test": bits, "y_test": truth,
    }  # fmt: skip


def plane() -> Arrays:
    """Return 2,000 samples of y = 0.3 + x·w + noise in five dimensions for training and 500 for test."""
    rng = np.random.default_rng(1)
    w = np.array([0.5, -0.25, 0.8, 0.1, -0.6])
    x = rng.uniform(-1.0, 1.0, (2500, 5))
    y = 0.3 + x @ w + rng.normal(0.0, NOISE, 2500)
    whole_x, whole_y = x.astype(np.float32), y.astype(np.float32)
    return {"x_train": whole_x[:2000], "y_train": whole_y[:2000], "x_test": whole_x[2000:], "y_test": whole_y[2000:]}


def closed_form(arrays: Arrays) -> tuple[np.ndarray, float]:
    """Return the solution of least squares with an intercept on the training set.

    Returns:
        The coefficients `float64[1 + d]`, the intercept first, and the mean squared error on the test set.
    """

    def design(x: np.ndarray) -> np.ndarray:
        return np.hstack([np.ones((len(x), 1)), x.astype(np.float64)])

    coefficients = np.linalg.lstsq(design(arrays["x_train"]), arrays["y_train"].astype(np.float64), rcond=None)[0]
    errors = design(arrays["x_test"]) @ coefficients - arrays["y_test"]
    return coefficients, float(np.mean(errors**2))


BUILT_IN: dict[str, Callable[[], Arrays]] = {
    "and": lambda: truth_table(np.logical_and),
    "or": lambda: truth_table(np.logical_or),
    "xor": lambda: truth_table(np.logical_xor),
    "plane": plane,
}
