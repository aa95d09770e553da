"""How a replay compares with the run that it repeats, for a person and for a program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from downpour.bench.replay.record import Recorded
from downpour.bench.replay.shards import Replay

TOLERANCE = 1e-3  # of the way from the initial weights, where bits cannot be expected


@dataclass(frozen=True)
class Weights:
    """Two vectors compared.

    Attributes:
        differing: Elements with other bits.
        largest: Of the differences.
        relative: Norm of the difference over that of the way from the initial weights.
    """

    differing: int
    largest: float
    relative: float

    @classmethod
    def of(cls, found: np.ndarray, expected: np.ndarray, initial: np.ndarray) -> Weights:
        """Compares `float32[n + m]` with what it has to be."""
        differing = int(np.count_nonzero(found.view(np.uint32) != expected.view(np.uint32)))
        if not differing:
            return cls(0, 0.0, 0.0)
        difference, way = (a.astype(np.float64) - b for a, b in ((found, expected), (expected, initial)))
        return cls(differing, float(np.abs(difference).max()), float(np.linalg.norm(difference) / np.linalg.norm(way)))


@dataclass(frozen=True)
class Verdict:
    """How a replay compares with its record.

    Attributes:
        replay: As it ended.
        weights: The last ones beside the run's; None if it stopped before.
        doubts: Why bits cannot be expected.
    """

    replay: Replay
    weights: Weights | None
    doubts: Sequence[str]

    @property
    def exact(self) -> bool:
        """Whether everything is the same, bit for bit."""
        differences = self.replay.differences
        return not differences.values and not differences.outcomes and not (self.weights and self.weights.differing)

    @property
    def passed(self) -> bool:
        """Exact; or, where bits cannot be expected, with the same outcomes and within the tolerance."""
        if self.exact:
            return True
        near = self.weights is None or self.weights.relative <= TOLERANCE
        return bool(self.doubts) and near and not self.replay.differences.outcomes


def report(verdict: Verdict, recorded: Recorded, path: Path | None) -> str:
    """The verdict for a person."""
    again, size = verdict.replay, f"{len(recorded.initial):,}"
    shards = "1 shard" if len(again.versions) == 1 else f"{len(again.versions)} shards"
    workers = len({worker for worker, _ in recorded.facts})
    lines = [
        f"{again.pushes:,} pushes of {workers} workers, {shards}, mode {recorded.settings.mode}: done again up to "
        f"version {again.versions[0]:,}",
        *_differences(verdict),
    ]
    weights = verdict.weights
    if weights is not None and weights.differing:
        lines.append(
            f"final weights: {weights.differing:,} of {size} differ, by at most {weights.largest:.3g}; "
            f"{weights.relative:.3g} of the way from the initial weights"
        )
    elif weights is not None:
        lines.append(f"final weights: all {size} identical, bit for bit")
    if not verdict.exact and verdict.doubts:
        found = "that holds" if verdict.passed else "that does not hold"
        lines += [
            "bits cannot be expected:",
            *(f"  {doubt}" for doubt in verdict.doubts),
            f"weights may then differ by {TOLERANCE:g} of the way, outcomes not at all: {found}",
        ]
    if path is not None:
        lines.append(f"weights at versions {again.versions} of the shards: {path}")
    return "\n".join(lines)


def _differences(verdict: Verdict) -> list[str]:
    differences = verdict.replay.differences
    if not differences.first:
        return ["outcome, staleness, learning rate, norm and loss of every push: as recorded, bit for bit"]
    return [
        f"{differences.values:,} pushes with another norm or loss, {differences.outcomes:,} other outcomes; the first:",
        f"  {differences.first}",
    ]


def as_json(verdict: Verdict, recorded: Recorded, path: Path | None, wall_s: float) -> str:
    """The verdict for a program."""
    again, weights = verdict.replay, verdict.weights
    content = {
        "run": str(recorded.path),
        "mode": recorded.settings.mode,
        "pushes": again.pushes,
        "versions": again.versions,
        "exact": verdict.exact,
        "passed": verdict.passed,
        "differing_values": again.differences.values,
        "differing_outcomes": again.differences.outcomes,
        "first_difference": again.differences.first,
        "weights": len(recorded.initial),
        "differing_weights": weights and weights.differing,
        "largest_difference": weights and weights.largest,
        "relative_difference": weights and weights.relative,
        "tolerance": TOLERANCE,
        "doubts": list(verdict.doubts),
        "saved": str(path) if path else None,
        "wall_s": wall_s,
    }
    return json.dumps(content, indent=2)
