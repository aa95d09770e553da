"""Compares ways to train over the same seeds: parses the seeds, runs all trainings in turns, and pairs the results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from downpour.bench.competitors.competitors import CompetitorError
from downpour.protos.system.progress import tracked

KERAS = "keras"  # name of the reference; the other names are numbers of workers


@dataclass
class Runs:
    """The results of every way to train.

    Attributes:
        found: The successful runs by name, each with its `seed`.
        failures: `row`, `seed` and `error` of the runs that failed.
    """

    found: dict[str, list[dict[str, Any]]]
    failures: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Spread:
    """The values of a measure over the seeds for which Keras has a result as well.

    Attributes:
        values: The values, in the order of the runs.
        reference: Keras's values for the same seeds.
    """

    values: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean of the values over the seeds."""
        return mean(self.values)

    @property
    def std(self) -> float:
        """The standard deviation of single runs; 0 for one run."""
        return stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def gap(self) -> float:
        """The difference of Keras's mean and this mean."""
        return mean(self.reference) - self.mean


def run_all(
    seeds: Sequence[int],
    workers: Sequence[int],
    run: Callable[[str, int], dict[str, Any]],
    shown: Callable[[Mapping[str, Any]], str],
) -> Runs:
    """Train with every seed, by Keras and by every number of workers in turns; print each result to standard error.

    Args:
        seeds: The seeds.
        workers: The numbers of workers.
        run: A function that trains, given a name and a seed, and returns the result.
        shown: A function that formats a result for the output.
    """
    runs = Runs({KERAS: [], **{str(count): [] for count in workers}})
    for seed in tracked(seeds, "seeds"):
        for name, found in runs.found.items():
            try:
                found.append({"seed": seed, **run(name, seed)})
                line = shown(found[-1])
            except CompetitorError as error:
                runs.failures.append({"row": name, "seed": seed, "error": str(error)})
                line = str(error)
            print(f"{name}, seed {seed}: {line}", file=sys.stderr, flush=True)
    return runs


def spreads(found: Mapping[str, Sequence[Mapping[str, Any]]], measure: str) -> dict[str, Spread]:
    """Return the spread of a measure for every name that has a seed in common with Keras."""
    reference = {run["seed"]: run[measure] for run in found[KERAS]}
    paired = {name: [run for run in runs if run["seed"] in reference] for name, runs in found.items()}
    return {
        name: Spread(tuple(run[measure] for run in runs), tuple(reference[run["seed"]] for run in runs))
        for name, runs in paired.items()
        if runs
    }


def numbers(text: str) -> list[int]:
    """Parse `0-4`, `2,4,8` or a combination as different integers, in the given order."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"must be numbers such as 0-4 or 2,4,8; received {text!r}")
        found.extend(range(int(first), int(last or first) + 1))
    if not found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"must name each number once; received {text!r}")
    return found
