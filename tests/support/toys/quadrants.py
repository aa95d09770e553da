"""A small data set that workers learn within seconds: four classes, one for each quadrant of two features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SAMPLES, HELD_OUT = 4_000, 200  # of the training data; the part held out is the default 5 %
USED = SAMPLES - HELD_OUT


def write_quadrants(path: Path) -> None:
    """Write the data as an `.npz` file for `--dataset`."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", SAMPLES), ("test", 400)):
        x = rng.uniform(-1.0, 1.0, (count, 6)).astype(np.float32)
        arrays[f"x_{part}"], arrays[f"y_{part}"] = x, ((x[:, 0] > 0) + 2 * (x[:, 1] > 0)).astype(np.uint8)
    np.savez(path, **arrays)
