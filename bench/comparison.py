"""Arithmetic of a comparison: how much data, what the repeats say, who is how much faster. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any


def plan_epochs(samples: int, batch_size: int, steps_per_call: int, available: int) -> tuple[int, int]:
    """Cuts a number of samples into equal epochs of whole calls, so that no competitor has a ragged end.

    Args:
        samples: How many to train on, at least.
        batch_size: Samples of one step.
        steps_per_call: Steps of the longest call; an epoch is a multiple of it.
        available: Samples of the dataset.

    Returns:
        Samples of an epoch and the number of epochs; their product is the least possible above `samples`, or
        less than one call per epoch more.

    Raises:
        ValueError: A number is not positive, or the dataset does not have one call's samples.
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
    """Median and quartiles of the repeats."""
    if len(values) == 1:
        return {"median": values[0], "q1": values[0], "q3": values[0]}
    q1, _, q3 = quantiles(values, n=4, method="inclusive")
    return {"median": median(values), "q1": q1, "q3": q3}


def ratios(runs: Mapping[str, Sequence[Mapping[str, Any]]], numerator: str) -> dict[str, dict[str, float]]:
    """How much faster `numerator` was than each other competitor, repeat by repeat.

    Runs of one repeat saw the machine in the same state; so their ratio is taken first, then the median.

    Args:
        runs: Per competitor its runs; each has `repeat` and `samples_per_s`.
        numerator: The competitor that is divided by the others.
    """
    own = {run["repeat"]: run["samples_per_s"] for run in runs.get(numerator, ())}
    found = {}
    for name, others in runs.items():
        pairs = [own[run["repeat"]] / run["samples_per_s"] for run in others if run["repeat"] in own]
        if name != numerator and pairs:
            found[name] = spread(pairs)
    return found


def order(names: Sequence[str], repeat: int) -> list[str]:
    """The names, turned by one place per repeat, so that no competitor always follows the same one."""
    turn = repeat % len(names)
    return [*names[turn:], *names[:turn]]


def table(model: Mapping[str, Any]) -> str:
    """Markdown: a row per competitor with samples/s, and how many times as fast each of ours was."""
    ours = list(model["ratios"])
    lines = [
        "| | samples/s, median (quartiles) | steps/s | "
        + "".join(f"{name} is faster by, median (quartiles) | " for name in ours)
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
