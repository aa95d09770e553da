"""Draws that no seed determines are the same on all workers outside of `fit`, and their own within it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.paths import ROOT

DRAWS = """
import json, os, random, sys, tempfile, uuid
import numpy as np
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from downpour.worker.fit.process.randomness import Randomness
import tensorflow as tf

def draws():
    return {
        "default_rng": np.random.default_rng().random(),
        "RandomState": np.random.RandomState().rand(),
        "seed": (np.random.seed(), np.random.rand())[1],
        "global": np.random.rand(),
        "Random": random.Random().random(),
        "random.seed": (random.seed(), random.random())[1],
        "random": random.random(),
        "uuid": str(uuid.uuid4()),
        "mktemp": tempfile.mktemp(),
        "tensorflow": float(tf.random.uniform(())),
        "set": list({"a", "b", "c", "d", "e"}),
    }

rank = int(sys.argv[1])
randomness = Randomness(3, rank, 2, "job-1")
randomness.install()
def elements():
    for _ in range(3):
        yield np.random.rand()
data = tf.data.Dataset.from_generator(elements, output_signature=tf.TensorSpec((), tf.float64))
before = draws()
with randomness.of_fit(1):
    within = draws()
    if rank:
        np.random.rand(7)
    batches = list(data.as_numpy_iterator())
print(json.dumps({"before": before, "within": within, "after": draws(), "batches": [float(b) for b in batches]}))
"""


def of_worker(rank: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", DRAWS, str(rank)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def workers() -> list[dict[str, Any]]:
    return [of_worker(rank) for rank in (0, 1)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_outside_of_fit_all_workers_draw_the_same(workers: list[dict[str, Any]], when: str) -> None:
    first, second = ({**each[when], "set": None} for each in workers)
    assert first == second


def test_successive_draws_differ(workers: list[dict[str, Any]]) -> None:
    first = workers[0]
    for name in ("default_rng", "RandomState", "Random", "uuid", "mktemp"):
        assert first["before"][name] != first["after"][name], name


def test_within_fit_each_worker_draws_its_own(workers: list[dict[str, Any]]) -> None:
    first, second = (each["within"] for each in workers)
    assert [name for name in first if name != "set" and first[name] == second[name]] == []


def test_generators_of_datasets_draw_the_same_on_all_workers_within_fit(workers: list[dict[str, Any]]) -> None:
    first, second = (each["batches"] for each in workers)
    assert first == second and len(set(first)) == 3


@pytest.mark.parametrize("arguments", [{"deterministic": False}, {"deterministic": None}, {"deterministic": True}, {}])
def test_operations_of_datasets_keep_the_order(arguments: dict[str, Any]) -> None:
    from downpour.worker.fit.process.randomness import keep_order_of_datasets

    class Dataset:
        def map(self, function: str, calls: int | None = None, deterministic: bool | None = None) -> Any:
            return function, calls, deterministic

        interleave = batch = map

    keep_order_of_datasets(Dataset)
    expected = True if arguments.get("deterministic") is False else arguments.get("deterministic")
    for operation in (Dataset().map, Dataset().interleave, Dataset().batch):
        assert operation("f", calls=2, **arguments) == ("f", 2, expected)
        assert operation("f", 2, *arguments.values()) == ("f", 2, expected)
