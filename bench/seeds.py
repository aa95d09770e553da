"""Several ways to train over the same seeds: reading the seeds, running all in turns, and pairing what came of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from downpour.bench.training.competitors import CompetitorError

KERAS = "keras"  # the reference; the other names are numbers of workers


@dataclass
class Runs:
    """What came of every way to train.

    Attributes:
        found: By name, a run each for those seeds that did not fail, with `seed` in it.
        failures: `row`, `seed` and `error` of those that did.
    """

    found: dict[str, list[dict[str, Any]]]
    failures: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Spread:
    """A measure over the seeds with which Keras ended too.

    Attributes:
        values: By seed, in the order of the runs.
        reference: Keras's for the same seeds.
    """

    values: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean."""
        return mean(self.values)

    @property
    def std(self) -> float:
        """The standard deviation of single runs; 0 for one."""
        return stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def gap(self) -> float:
        """By how much the mean is below Keras's."""
        return mean(self.reference) - self.mean


def run_all(
    seeds: Sequence[int],
    workers: Sequence[int],
    run: Callable[[str, int], dict[str, Any]],
    shown: Callable[[Mapping[str, Any]], str],
) -> Runs:
    """Trains with every seed by Keras and by every number of workers, in turns; tells of each on standard error.

    Args:
        seeds: Each of them.
        workers: Numbers of workers.
        run: From a name and a seed to what came of it.
        shown: What of that is told.
    """
    runs = Runs({KERAS: [], **{str(count): [] for count in workers}})
    for seed in seeds:
        for name, found in runs.found.items():
            try:
                found.append({"seed": seed, **run(name, seed)})
                told = shown(found[-1])
            except CompetitorError as error:
                runs.failures.append({"row": name, "seed": seed, "error": str(error)})
                told = str(error)
            print(f"{name}, seed {seed}: {told}", file=sys.stderr, flush=True)
    return runs


def spreads(found: Mapping[str, Sequence[Mapping[str, Any]]], measure: str) -> dict[str, Spread]:
    """The spread of a measure for every name that has a seed in common with Keras."""
    reference = {run["seed"]: run[measure] for run in found[KERAS]}
    paired = {name: [run for run in runs if run["seed"] in reference] for name, runs in found.items()}
    return {
        name: Spread(tuple(run[measure] for run in runs), tuple(reference[run["seed"]] for run in runs))
        for name, runs in paired.items()
        if runs
    }


def numbers(text: str) -> list[int]:
    """Reads `0-4`, `2,4,8`, or both mixed, as whole numbers without repetition, in the order given."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"must be numbers such as 0-4 or 2,4,8; received {text!r}")
        found.extend(range(int(first), int(last or first) + 1))
    if not found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"must name each number once; received {text!r}")
    return found
