"""`downpour bench course`: the verdict on several seeds, and its report."""

from __future__ import annotations

import math

import pytest

from downpour.bench.competitors.competitors import CompetitorError
from downpour.bench.training import course
from downpour.bench.training.seeds import Runs, Spread, run_all, spreads

ACCURACY = course.CourseEntry("fashion128", "fashion_mnist", "test_accuracy", 0.01, "")
LOSS = course.CourseEntry("regression", "plane", "test_loss", 1.1, "")
LEARNED = course.CourseEntry("xor_mlp", "xor", "test_accuracy", None, "learned")
IMPOSSIBLE = course.CourseEntry("perceptron", "xor", "test_accuracy", None, "impossible for one unit")


@pytest.mark.parametrize(
    ("row", "ours", "keras", "held"),
    [
        (ACCURACY, (0.85, 0.88), (0.87, 0.86), True),  # one draw is below by 0.02, the mean is not below
        (ACCURACY, (0.85, 0.86), (0.87, 0.87), False),
        (ACCURACY, (math.nan, 0.88), (0.87, 0.86), False),
        (LOSS, (0.0109,), (0.01,), True),
        (LOSS, (0.0109, 0.0112), (0.01, 0.01), False),
        (LEARNED, (1.0, 1.0), (1.0, 1.0), True),
        (LEARNED, (1.0, 0.75), (1.0, 1.0), False),
        (LEARNED, (0.75,), (0.75,), False),
        (IMPOSSIBLE, (0.5, 0.75), (0.75, 0.5), True),
        (IMPOSSIBLE, (0.5, 1.0), (0.5, 0.5), False),
    ],
)
def test_the_verdict_is_on_means_and_of_truth_tables_on_all(row, ours, keras, held):
    assert course.holds(row, Spread(ours, keras)) is held


def run_of(values, failing=()):
    def run(name, seed):
        if (name, seed) in failing:
            raise CompetitorError("it must end")
        return {"test_accuracy": values[name] + seed / 1000}

    return run


def measured(monkeypatch, failing=(), **values):
    monkeypatch.setattr(course, "run", lambda name, seed, *_: run_of(values, failing)(name, seed))
    flags = course.parse(["fashion128", "--seeds", "0-2", "--workers", "2"])
    return course.measured(ACCURACY, flags), flags


def test_every_seed_is_in_the_report(monkeypatch):
    row, flags = measured(monkeypatch, **{"keras": 0.87, "2": 0.871})
    assert row["passed"]
    text = course.report([row], flags)
    assert "| 0.8710 (0.0010) | 0.8720 (0.0010) |" in text
    assert "| 0.8700, 0.8710, 0.8720 | 0.8710, 0.8720, 0.8730 |" in text
    assert "FAILED" not in text


def test_a_failed_run_fails_its_row_and_is_reported(monkeypatch):
    row, flags = measured(monkeypatch, {("2", 1)}, **{"keras": 0.87, "2": 0.9})
    assert not row["passed"]
    text = course.report([row], flags)
    assert "0.9000, failed, 0.9020" in text
    assert "- fashion128, 2, seed 1: it must end" in text
    row, flags = measured(monkeypatch, {("keras", seed) for seed in (0, 1, 2)}, **{"keras": 0.87, "2": 0.9})
    assert not row["passed"]
    assert "| failed | failed |" in course.report([row], flags)


def test_only_seeds_of_both_are_compared():
    runs = run_all([0, 1], [2], run_of({"keras": 0.9, "2": 0.8}, {("keras", 1)}), str)
    assert isinstance(runs, Runs)
    assert [failure["seed"] for failure in runs.failures] == [1]
    assert spreads(runs.found, "test_accuracy")["2"] == Spread((0.8,), (0.9,))
