"""What scripts do around `fit`, and kinds of models: with one line changed, alike on all workers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripts import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def seen(folder: Path, script: str) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{script}-{rank}.json").read_text()) for rank in (0, 1)]


def printed(folder: Path, done: subprocess.CompletedProcess[str], workers: int) -> list[dict[str, Any]]:
    """Return what each worker has printed after SEEN: worker 0 to the terminal, the others to their logs."""
    logs = folder / "runs" / "latest" / "logs"
    texts = [done.stdout, *((logs / f"worker-{rank}.log").read_text() for rank in range(1, workers))]
    lines = [next(line for line in text.splitlines() if line.startswith("SEEN ")) for text in texts]
    return [json.loads(line.removeprefix("SEEN ")) for line in lines]


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("flow")
    run(folder, "flow.py", str(folder), workers=2, shards=2)
    return seen(folder, "flow")


@pytest.fixture(scope="module")
def kinds_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("kinds")
    return folder, run(folder, "kinds.py", str(folder), workers=2, shards=2).stderr


@pytest.fixture(scope="module")
def kinds(kinds_run: tuple[Path, str]) -> list[dict[str, Any]]:
    return seen(kinds_run[0], "kinds")


def test_all_workers_have_seen_what_worker_0_has(flow: list[dict[str, Any]]) -> None:
    for case in ("callbacks_are_read", "goes_on_by_what_a_callback_saw", "best_weights_are_loaded"):
        assert flow[0][case] == flow[1][case], case
    losses, _, stopped, best = flow[0]["callbacks_are_read"]
    assert (losses, stopped, best) == (20, 1, 0)  # two epochs of 10 batches
    assert flow[0]["goes_on_by_what_a_callback_saw"] == [0, 1]


@pytest.mark.parametrize(("workers", "flags"), [(2, {"shards": 2}), (4, {}), (2, {"mode": "bsp"})])
def test_variables_of_every_kind_are_the_same_on_all_workers(
    tmp_path: Path, workers: int, flags: dict[str, Any]
) -> None:
    first, *others = printed(tmp_path, run(tmp_path, "states.py", str(tmp_path), workers=workers, **flags), workers)
    assert len(first) == 8 and all(other == first for other in others)
    assert "stateful=True" in first["states_between_batches_are_refused"]


@pytest.mark.parametrize(("workers", "flags"), [(2, {"shards": 2}), (4, {}), (2, {"mode": "bsp"})])
def test_callbacks_see_and_do_the_same_on_all_workers(tmp_path: Path, workers: int, flags: dict[str, Any]) -> None:
    first, *others = printed(tmp_path, run(tmp_path, "callbacks_everywhere.py", workers=workers, **flags), workers)
    assert len(first) == 8 and all(other == first for other in others)


def test_a_file_saved_by_a_script_can_be_loaded_at_once_on_all_workers(flow: list[dict[str, Any]]) -> None:
    for far, iterations, _ in (rank["saved_and_loaded_at_once"] for rank in flow):
        assert far < 1e-5
        assert iterations == 20
    assert flow[0]["saved_and_loaded_at_once"] == flow[1]["saved_and_loaded_at_once"]


def test_a_callback_may_evaluate_and_build_models(flow: list[dict[str, Any]]) -> None:
    """An evaluation does not end the epoch, and a model that a callback builds does not replace the trained one."""
    assert flow[0]["evaluated_within_an_epoch"] == [10, 20]
    assert flow[0]["a_callback_builds_layers"] == flow[1]["a_callback_builds_layers"]
    assert flow[0]["rates_are_set_between"] == pytest.approx(0.4)


def test_loops_outside_of_fit_are_refused_with_what_to_do(flow: list[dict[str, Any]]) -> None:
    for rank in flow:
        assert len(rank["refused"]) == 2
        assert all("train_on_batch" in message and "downpour.training" in message for message in rank["refused"])


def test_every_worker_gets_both_kinds_of_pairs_that_alternate(kinds: list[dict[str, Any]]) -> None:
    assert kinds[0]["pairs_that_alternate"]["accuracy"][-1] > 0.9


def test_text_and_time_series_models_learn(kinds: list[dict[str, Any]]) -> None:
    assert kinds[0]["texts"]["accuracy"] > 0.9
    assert kinds[0]["texts"] == kinds[1]["texts"]
    losses = kinds[0]["series"]["loss"]
    assert losses[-1] < 0.3 * losses[0]


def test_weights_may_be_created_only_in_a_train_step(kinds: list[dict[str, Any]]) -> None:
    for rank in kinds:
        found = rank["weights_of_a_train_step"]
        assert found["weights"] == 6
        assert found["iterations"] == 12  # 96 samples in batches of 16, two epochs
        assert found["loss"][1] < found["loss"][0]


def test_metrics_are_put_together_as_they_say(kinds: list[dict[str, Any]]) -> None:
    """By sum, by mean, or only from worker 0; metrics whose values are vectors are included."""
    assert kinds[0]["metrics_of_all_kinds"] == kinds[1]["metrics_of_all_kinds"]
    found = kinds[0]["metrics_of_all_kinds"]
    assert found["sum"] == [120, 120] and found["mean"] == [60, 60]
    assert all(0 <= count <= 120 and count % 10 == 0 for count in found["only_first_replica"]), "whole batches of one"
    assert len(found["f1"]) == 2


def test_only_a_metric_that_is_not_a_sum_is_named_and_once(kinds_run: tuple[Path, str]) -> None:
    warnings = [line for line in kinds_run[1].splitlines() if "the variable of a metric" in line]
    assert len(warnings) == 1
    assert "Received: highest/most. For" in warnings[0]


def test_a_base_is_frozen_then_tuned(kinds: list[dict[str, Any]]) -> None:
    for rank in kinds:
        found = rank["transferred"]
        assert found["epochs"] == [0, 1, 2, 3]
        assert found["moved"][0] == 0 and found["moved"][1] > 1e-4
