"""What the page of the playground shows of a training: snapshots, each with what is new since the one before."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from downpour.deploy.playground.engine import Engine
from downpour.deploy.playground.network import EXTENT

GRID = 40  # cells of the picture of the output, in each direction
MOST_EVENTS, MOST_INTERVALS = 200, 400  # in one snapshot
MOST_LOSSES = 200  # of the pushes before the first snapshot

Loss = tuple[int, float | None, float | None]  # number of pushes, loss on the training and on the test data


class Snapshots:
    """The snapshots of one training for the page, each with what is new since the one before."""

    def __init__(self, engine: Engine, losses: Sequence[Loss] = ()) -> None:
        """Begin with the present state of a training.

        Args:
            engine: The training.
            losses: The losses before this state, for the first snapshot.
        """
        self._losses = losses
        self._engine, self._events, self._intervals = engine, len(engine.events), 0
        axis = (np.arange(GRID) + 0.5) / GRID * 2 * EXTENT - EXTENT
        x, y = np.meshgrid(axis, axis[::-1])
        self._points = np.stack((x.ravel(), y.ravel()), 1)

    def first(self) -> dict[str, Any]:
        """Return what does not change: the points of the data and the sizes of the layers."""
        engine = self._engine
        points = [
            [round(float(x), 3), round(float(y), 3), int(label), test]
            for test, (places, labels) in ((0, engine.train), (1, engine.test))
            for (x, y), label in zip(places, labels, strict=True)
        ]
        return {
            "points": points,
            "sizes": engine.network.sizes,
            "extent": EXTENT,
            "losses": self._losses,
            **self.take(),
        }

    def take(self) -> dict[str, Any]:
        """Return the present state, and the pushes and intervals since the last call."""
        engine, flat = self._engine, self._engine.weights
        with np.errstate(all="ignore"):
            outputs = 1 / (1 + np.exp(-np.clip(engine.network.outputs(flat, self._points), -30, 30)))
        grid = np.nan_to_num(outputs * 255).astype(np.uint8)
        events, intervals = engine.events[self._events :], engine.intervals[self._intervals :]
        self._events, self._intervals = len(engine.events), len(engine.intervals)
        staleness = [
            [engine.staleness(worker)[value] for value in range(3 * engine.setup.workers + 1)]
            for worker in range(engine.setup.workers)
        ]
        return {
            "pushes": engine.pushes, "time": engine.time, "version": engine.shard.version,
            "train": _finite(engine.loss()), "test": _finite(engine.loss(test=True)), "accuracy": engine.accuracy(),
            "diverged": engine.diverged, "grid": base64.b64encode(grid.tobytes()).decode(),
            "weights": [_finite(float(value)) for value in flat], "workers": engine.activity(), "staleness": staleness,
            "wait": engine.share("wait"), "spread": engine.spread,
            "events": [dataclasses.astuple(event) for event in events[-MOST_EVENTS:]],
            "intervals": [dataclasses.astuple(each) for each in intervals[-MOST_INTERVALS:]],
        }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def losses_until(engine: Engine, pushes: int) -> list[Loss]:
    """Advance a training to a number of pushes; return its losses on the way, at most `MOST_LOSSES` of them."""
    step, found = max(1, -(-pushes // MOST_LOSSES)), list[Loss]()
    while engine.pushes < pushes:
        engine.run(min(step, pushes - engine.pushes))
        found.append((engine.pushes, _finite(engine.loss()), _finite(engine.loss(test=True))))
    return found
