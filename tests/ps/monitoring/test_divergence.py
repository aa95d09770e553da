"""A learning rate that is too large is reported, before the first NaN and at it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from downpour.ps.core.push import Outcome, Push, Result
from downpour.ps.monitoring.divergence import FEWEST_UPDATES, LossWatch
from downpour.ps.trace.metrics import Metrics, divergence
from tests.support.scripts import environment


def notes(losses: Iterable[float]) -> list[str]:
    metrics = Metrics()
    watch, found = LossWatch(metrics), []
    for seq, loss in enumerate(losses, 1):
        metrics.record(Push(0, 1, seq, seq - 1, samples=8, loss=loss), Result(Outcome.APPLIED, seq, 0, 0.1), float(seq))
        found.append(watch.look())
    return [note for note in found if note]


def test_a_rising_loss_is_reported_once() -> None:
    (note,) = notes(2.0 + 0.1 * step for step in range(8 * FEWEST_UPDATES))
    assert "risen from 4.45 to 9.45" in note and "learning rate is too large" in note


def test_a_loss_that_rose_before_the_first_check_is_reported() -> None:
    metrics = Metrics()
    for seq, loss in enumerate([2.0, *[400.0] * 2 * FEWEST_UPDATES], 1):
        metrics.record(Push(0, 1, seq, seq - 1, samples=8, loss=loss), Result(Outcome.APPLIED, seq, 0, 0.1), float(seq))
    assert "risen from 2 to 396" in LossWatch(metrics).look()


def test_a_loss_that_rises_within_the_first_updates_is_reported_at_the_first_check() -> None:
    (note,) = notes([2.0, *[400.0] * 3 * FEWEST_UPDATES])
    assert "risen from 2 to 392" in note


def test_a_falling_or_oscillating_loss_is_not_reported() -> None:
    assert notes(10.0 / (1 + step) for step in range(4 * FEWEST_UPDATES)) == []
    assert notes(2.0 + (step % 2) for step in range(4 * FEWEST_UPDATES)) == []
    assert notes(0.0 for _ in range(4 * FEWEST_UPDATES)) == []


def test_trained_weights_may_lose_some_of_what_they_have() -> None:
    assert notes(0.001 * (1 + step) for step in range(3 * FEWEST_UPDATES)) == []
    (note,) = notes(0.001 * (1 + step) for step in range(6 * FEWEST_UPDATES))
    assert "risen from 0.0255 to 0.225" in note


@pytest.mark.parametrize(("last", "diverged"), [(0.19, False), (0.21, True)])
def test_a_job_from_trained_weights_diverges_only_above_a_floor(last: float, diverged: bool) -> None:
    metrics = Metrics()
    for epoch, loss in enumerate((0.001, last)):
        push = Push(0, 1, epoch + 1, epoch, samples=8, loss=loss, epoch=epoch)
        metrics.record(push, Result(Outcome.APPLIED, epoch + 1, 0, 0.1), 1.0)
    assert bool(divergence(metrics)) is diverged


def test_the_loss_of_an_earlier_call_of_fit_does_not_count() -> None:
    metrics = Metrics()
    watch, seq = LossWatch(metrics), 0
    for level in (0.1, 5.0):  # of two calls of `fit`
        metrics.begin_fit()
        for _ in range(3 * FEWEST_UPDATES):
            seq += 1
            push = Push(0, 1, seq, seq - 1, samples=8, loss=level, epoch=0)
            metrics.record(push, Result(Outcome.APPLIED, seq, 0, 0.1), float(seq))
            assert watch.look() == ""
    assert divergence(metrics) == ""
    assert [round(epoch.loss, 3) for epoch in metrics.epochs.values()] == [0.1, 5.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "rate", "code", "words"),
    [
        ("sigmoid100", 100, 0, "the training loss has risen from"),
        ("regression", 1000, 1, "must be finite; received 10"),
    ],
)
def test_the_summary_of_a_diverged_job_states_it(
    tmp_path: Path, model: str, rate: float, code: int, words: str
) -> None:
    line = [
        sys.executable, "-m", "downpour.deploy.cli", "train", f"--model={model}", f"--learning-rate={rate}",
        "--workers=2",
        "--epochs=1", "--xla=off", f"--runs-dir={tmp_path}",
    ]  # fmt: skip
    done = subprocess.run(line, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == code, done.stdout + done.stderr
    assert words in done.stdout + done.stderr and "try a tenth of it" in done.stdout + done.stderr
    if code == 0:
        noted = json.loads((tmp_path / "latest" / "summary.json").read_text())["notes"]
        assert any(words in note for note in noted)
