"""`downpour.training`: loops of scripts in one process, and with two workers and two shards."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import downpour
from downpour.protos.errors import UnknownWorker, Unsupported
from downpour.worker import script
from downpour.worker.fit.optimizer.gradient_op import NO_SPAN
from downpour.worker.loops.loop_gradient_op import CountedBatches, LoopGradientOp, TrainedWeights
from tests.support.scripts import SCRIPTS, environment, run

Seen = dict[str, Any]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("plain")
    command = [sys.executable, str(SCRIPTS / "training_loops.py"), str(folder)]
    subprocess.run(command, check=True, env=environment(), cwd=folder, timeout=300)
    found: Seen = json.loads((folder / "0.json").read_text())
    return found


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    folder = tmp_path_factory.mktemp("loops")
    run(folder, "training_loops.py", str(folder), workers=2, shards=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def model() -> keras.Model:
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def test_a_process_without_servers_has_one_worker_and_nothing_waits() -> None:
    optimizer = keras.optimizers.SGD(0.1)
    with downpour.training(model(), optimizer) as job:
        assert (job.rank, job.size, job.stopping) == (0, 1, False)
        job.barrier()
        assert job.mean(2) == 2.0
        assert np.array_equal(job.mean([[1.0, 2.0]]), [[1.0, 2.0]])
    assert type(optimizer) is keras.optimizers.SGD


@pytest.mark.parametrize(("samples", "batch_size"), [(10, 3), (4, 4), (1, 32)])
def test_a_pass_has_every_sample_once_in_an_order_of_its_own(samples: int, batch_size: int) -> None:
    with downpour.training(model(), "sgd") as job:
        passes = [list(job.leased(samples, batch_size)) for _ in range(2)]
    for batches in passes:
        assert sorted(np.concatenate(batches).tolist()) == list(range(samples))
        assert all(0 < len(batch) <= batch_size for batch in batches)


@pytest.mark.parametrize(("samples", "batch_size"), [(0, 3), (4, 0)])
def test_sizes_are_checked(samples: int, batch_size: int) -> None:
    with downpour.training(model(), "sgd") as job, pytest.raises(Unsupported, match="at least 1"):
        next(job.leased(samples, batch_size))


def test_every_optimizer_has_weights_of_its_own() -> None:
    shared = model()
    with pytest.raises(Unsupported, match="one optimizer"):
        TrainedWeights([shared, shared])
    with pytest.raises(Unsupported, match="2 optimizers and 1"), downpour.training([shared], ["sgd", "adam"]):
        pass


def test_models_must_be_built_and_variables_those_of_keras() -> None:
    with pytest.raises(Unsupported, match="must be built"):
        TrainedWeights([keras.Sequential([keras.layers.Dense(1)])])
    with pytest.raises(Unsupported, match="Received: ndarray"):
        TrainedWeights([[np.zeros(3)]])


def test_the_table_of_a_schedule_is_extended_in_a_pass_without_barriers() -> None:
    asked: list[int] = []

    class Optimizers:
        def new_rates(self, steps: int, newer: int, with_schedule: bool) -> list[Any]:
            asked.append(newer)
            return []

    op: Any = LoopGradientOp.__new__(LoopGradientOp)
    op._optimizers, op._first_version = Optimizers(), 100
    for version in (100, 25_100, 0):
        op._member = SimpleNamespace(versions=(version,))
        op.send_rates()
    assert asked == [0, 25_000, 0]


def test_a_session_that_is_lost_before_a_push_of_a_loop_raises_nothing_and_the_rates_are_sent_again() -> None:
    """The push itself begins another session, and `optimizer.apply` of the script must not raise the loss."""
    sent: list[str] = []

    class Optimizers:
        changed = True

        def new_rates(self, steps: int, newer: int, with_schedule: bool) -> list[Any]:
            changed, self.changed = self.changed, False
            return ["table"] if changed else []

        def forget_sent(self) -> None:
            self.changed = True

    class Member:
        versions, outdated, is_leader, lost = (100,), True, True, True

        def set_learning_rates(self, rates: list[Any]) -> None:
            if self.lost:
                raise UnknownWorker("the session has ended.")
            sent.extend(rates)

        def pull(self) -> Any:
            self.lost = self.outdated = False
            return np.zeros(2, np.float32), None

    op: Any = LoopGradientOp.__new__(LoopGradientOp)
    op._optimizers, op._first_version, op._member = Optimizers(), 100, Member()
    op._given, op._leases, op.active, op._variables = (
        None,
        None,
        True,
        SimpleNamespace(layout=SimpleNamespace(trained=2)),
    )
    op._batches = CountedBatches()
    for _ in range(2):
        op._push_pull(b"", False, np.zeros(2, np.float32), np.zeros(0, np.float32), 1.0, 0.5, 2, NO_SPAN, 0)
        op._member.outdated = True
    assert sent == ["table"]


@given(st.lists(st.integers(0, 3), max_size=60))
def test_batches_to_which_several_optimizers_are_applied_count_once(pushes: list[int]) -> None:
    batches = CountedBatches()
    counted = sum(not batches.repeats(optimizer) for optimizer in pushes)
    assert counted == max(map(pushes.count, pushes), default=0)


def test_a_leased_dataset_is_refused_in_a_loop_of_several_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    data = downpour.LeasedDataset(np.arange(10), batch_size=4)
    with script.looping():
        assert len(data[0][0]) == 4
        monkeypatch.setattr(script, "member", SimpleNamespace(rank=0, size=2))
        with pytest.raises(Unsupported, match="job.leased"):
            data[0]
    assert len(data[0][0]) == 4


@pytest.mark.slow
class TestWithWorkers:
    """The script `training_loops.py` with plain Keras, and with two workers and two shards."""

    @pytest.mark.parametrize("part", ["leased", "gan", "train_on_batch", "variable", "samples", "then_fit"])
    def test_all_workers_have_the_same_weights_and_means(self, workers: list[Seen], part: str) -> None:
        assert workers[0][part] == workers[1][part]

    def test_each_sample_is_used_once_in_each_pass(self, workers: list[Seen], plain: Seen) -> None:
        assert plain["samples"] == workers[0]["samples"] == 2 * 4 * 640

    @pytest.mark.parametrize(
        ("part", "place"), [("leased", 1), ("gan", 0), ("gan", 1), ("train_on_batch", 0), ("then_fit", 0)]
    )
    def test_as_many_updates_are_made_as_in_one_process(
        self, workers: list[Seen], plain: Seen, part: str, place: int
    ) -> None:
        assert workers[0][part][place] == plain[part][place]

    def test_every_network_is_trained_by_its_optimizer(self, workers: list[Seen], plain: Seen) -> None:
        assert workers[0]["gan_moved"] == plain["gan_moved"]
        assert workers[0]["learned"] and plain["learned"]

    def test_a_rate_that_the_loop_assigns_is_used_on_the_servers(self, workers: list[Seen], plain: Seen) -> None:
        assert workers[0]["variable"] == plain["variable"] == [-6.0, -6.0, -6.0]

    def test_assigned_weights_and_dropped_batches_are_refused(self, workers: list[Seen]) -> None:
        for seen in workers:
            assert seen["errors"]["assigned"][0] == "Unsupported"
            assert "only optimizers may change weights" in seen["errors"]["assigned"][1]
            assert "must be applied to every batch" in seen["errors"]["dropped"][1]

    def test_an_error_of_one_worker_is_raised_on_all(self, workers: list[Seen]) -> None:
        assert [seen["errors"]["raised"] for seen in workers] == [["KeyError", "'mine'"]] * 2
