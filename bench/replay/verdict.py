"""The verdict on a replay, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from downpour.bench.replay.record import Recorded
from downpour.bench.replay.shards import Replay
from downpour.protos.sentences.sentence import counted

TOLERANCE = 1e-3  # relative to the distance from the initial weights, if equal bits cannot be expected


@dataclass(frozen=True)
class Weights:
    """The comparison of two weight vectors.

    Attributes:
        differing: The number of elements with different bits.
        largest: The largest absolute difference.
        relative: The norm of the difference, divided by the distance from the initial weights.
    """

    differing: int
    largest: float
    relative: float

    @classmethod
    def of(cls, found: np.ndarray, expected: np.ndarray, initial: np.ndarray) -> Weights:
        """Compare weights `float32[n + m]` with the expected ones."""
        differing = int(np.count_nonzero(found.view(np.uint32) != expected.view(np.uint32)))
        if not differing:
            return cls(0, 0.0, 0.0)
        difference, way = (a.astype(np.float64) - b for a, b in ((found, expected), (expected, initial)))
        return cls(differing, float(np.abs(difference).max()), float(np.linalg.norm(difference) / np.linalg.norm(way)))


@dataclass(frozen=True)
class Verdict:
    """The comparison of a replay with its record.

    Attributes:
        replay: The finished replay.
        weights: The comparison of the final weights; None if the replay stopped earlier.
        nondeterminism: The reasons why equal bits cannot be expected.
    """

    replay: Replay
    weights: Weights | None
    nondeterminism: Sequence[str]

    @property
    def exact(self) -> bool:
        """Whether all bits are equal."""
        differences = self.replay.differences
        return not differences.values and not differences.outcomes and not (self.weights and self.weights.differing)

    @property
    def passed(self) -> bool:
        """Whether all bits are equal or, if that cannot be expected, the outcomes are and the weights are close."""
        if self.exact:
            return True
        near = self.weights is None or self.weights.relative <= TOLERANCE
        return bool(self.nondeterminism) and near and not self.replay.differences.outcomes


def report(verdict: Verdict, recorded: Recorded, path: Path | None) -> str:
    """Return the verdict as text."""
    again, size = verdict.replay, f"{len(recorded.initial):,}"
    shards = counted(len(again.versions), "shard")
    workers = len({worker for worker, _ in recorded.facts})
    lines = [
        f"{counted(again.pushes, 'push', 'pushes')} of {counted(workers, 'worker')}, {shards}, mode "
        f"{recorded.settings.mode}: repeated up to "
        f"version {again.versions[0]:,}",
        *_differences(verdict),
    ]
    weights = verdict.weights
    if weights is not None and weights.differing:
        lines.append(
            f"final weights: {weights.differing:,} of {size} differ, by at most {weights.largest:.3g}; "
            f"{weights.relative:.3g} of the distance from the initial weights"
        )
    elif weights is not None:
        lines.append(f"final weights: all {size} identical, bit for bit")
    if not verdict.exact and verdict.nondeterminism:
        found = "this holds" if verdict.passed else "this does not hold"
        lines += [
            "equal bits cannot be expected:",
            *(f"  {reason}" for reason in verdict.nondeterminism),
            f"weights may differ by {TOLERANCE:g} of the distance from the initial weights, outcomes must not: {found}",
        ]
    if path is not None:
        several = len(again.versions) > 1
        each = (f"{at:,}" + f" of shard {shard}" * several for shard, at in enumerate(again.versions))
        lines.append(f"weights of version {', '.join(each)}: {path}")
    return "\n".join(lines)


def _differences(verdict: Verdict) -> list[str]:
    differences = verdict.replay.differences
    if not differences.first:
        return ["outcome, staleness, learning rate, norm and loss of every push: as recorded, bit for bit"]
    return [
        f"{counted(differences.values, 'push', 'pushes')} with another norm or loss, "
        f"{counted(differences.outcomes, 'other outcome')}; the first:",
        f"  {differences.first}",
    ]


def as_json(verdict: Verdict, recorded: Recorded, path: Path | None, wall_s: float) -> str:
    """Return the verdict as JSON."""
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
        "nondeterminism": list(verdict.nondeterminism),
        "saved": str(path) if path else None,
        "wall_s": wall_s,
    }
    return json.dumps(content, indent=2)
