"""What is said of a short or adversarial training before it begins."""

from __future__ import annotations

import re

import pytest

from downpour.worker.plan.staleness_advice import staleness_advice


@pytest.mark.parametrize(
    ("mode", "workers", "updates", "optimizers", "words"),
    [
        ("async", 2, 100, 1, "100 updates are few.*2 workers in mode async.*about 1 update old"),
        ("async", 4, 1200, 1, "1,200 updates are few.*about 3 updates old"),
        ("async", 2, 10_000, 2, "2 optimizers train against each other.*mode bsp with 2 times"),
        ("async", 2, None, 2, "2 optimizers"),
        ("bsp", 4, 100, 1, "100 updates are few.*one of 4 batches.*4 times the learning rate"),
    ],
)
def test_short_and_adversarial_trainings_get_advice(
    mode: str, workers: int, updates: int | None, optimizers: int, words: str
) -> None:
    assert re.search(words, staleness_advice(mode, workers, updates, optimizers))


@pytest.mark.parametrize(
    ("mode", "workers", "updates", "optimizers"),
    [("async", 1, 10, 3), ("async", 2, 5000, 1), ("async", 2, None, 1), ("bsp", 2, 5000, 2)],
)
def test_others_get_none(mode: str, workers: int, updates: int | None, optimizers: int) -> None:
    assert staleness_advice(mode, workers, updates, optimizers) == ""
