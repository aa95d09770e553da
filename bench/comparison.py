"""The arithmetic of a comparison: the size of the data, the spread of the repeats, and ratios of rates.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any


def plan_epochs(samples: int, batch_size: int, steps_per_call: int, available: int) -> tuple[int, int]:
    """Divide a number of samples into equal epochs of whole calls, so that no competitor has a partial call.

    Args:
        samples: The minimum number of samples to train on.
        batch_size: The number of samples of one step.
        steps_per_call: The number of steps of the longest call; an epoch is a multiple of it.
        available: The number of samples of the dataset.

    Returns:
        The samples of an epoch and the number of epochs. Their product is at least `samples`, and exceeds the smallest
        possible value by less than one call per epoch.

    Raises:
        ValueError: A number is not positive, or the dataset is smaller than one call.
    """
    if min(samples, batch_size, steps_per_call) < 1:
        raise ValueError(
            f"samples, batch size and steps must be at least 1. Received: {samples}, {batch_size}, {steps_per_call}."
        )
    call = batch_size * steps_per_call
    if call > available:
        raise ValueError(
            f"{steps_per_call} steps of {batch_size} samples must fit into the dataset's {available}. "
            "Choose a smaller batch."
        )
    calls = math.ceil(samples / call)
    epochs = math.ceil(calls / (available // call))
    return math.ceil(calls / epochs) * call, epochs


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the quartiles of the repeats."""
    if len(values) == 1:
        return {"median": values[0], "q1": values[0], "q3": values[0]}
    q1, _, q3 = quantiles(values, n=4, method="inclusive")
    return {"median": median(values), "q1": q1, "q3": q3}


def ratios(runs: Mapping[str, Sequence[Mapping[str, Any]]], numerator: str) -> dict[str, dict[str, float]]:
    """Return the ratios of the rate of `numerator` to that of each other competitor.

    The ratio is computed per repeat, whose runs are measured under similar conditions; then the spread is taken.

    Args:
        runs: The runs of each competitor, with `repeat` and `samples_per_s`.
        numerator: The competitor whose rate is divided by the others.
    """
    own = {run["repeat"]: run["samples_per_s"] for run in runs.get(numerator, ())}
    found = {}
    for name, others in runs.items():
        pairs = [own[run["repeat"]] / run["samples_per_s"] for run in others if run["repeat"] in own]
        if name != numerator and pairs:
            found[name] = spread(pairs)
    return found


def order(names: Sequence[str], repeat: int) -> list[str]:
    """Return the names, rotated by one place per repeat, so that no competitor always follows the same one."""
    turn = repeat % len(names)
    return [*names[turn:], *names[:turn]]


def table(model: Mapping[str, Any]) -> str:
    """Return a Markdown table with the samples/s of each competitor and the ratios of this system's rates."""
    ours = list(model["ratios"])
    lines = [
        "| | samples/s, median (quartiles) | steps/s | "
        + "".join(f"ratio of {name}, median (quartiles) | " for name in ours)
        + "loss | accuracy |",
        "|---" * (5 + len(ours)) + "|",
    ]
    for name, competitor in model["competitors"].items():
        rate, last = competitor["samples_per_s"], competitor["runs"][-1]
        lines.append(
            f"| {competitor['what']} | {rate['median']:,.0f} ({rate['q1']:,.0f} – {rate['q3']:,.0f}) "
            f"| {rate['median'] / model['batch_size']:,.0f} | "
            + "".join(f"{_times(model['ratios'][own].get(name))} | " for own in ours)
            + f"{_number(last['loss'])} | {_number(last['accuracy'])} |"
        )
    return "\n".join(lines)


def _times(ratio: Mapping[str, float] | None) -> str:
    return f"{ratio['median']:.2f} × ({ratio['q1']:.2f} – {ratio['q3']:.2f})" if ratio else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
