"""Adding an optimizer, mode, compensation, schedule or codec is adding one row, which can then train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from downpour.protos.codecs.codec import codec_named
from downpour.protos.settings import parse
from downpour.ps.config import JobSettings
from downpour.ps.config_checks import refusal_of_steps, warnings_of
from downpour.ps.core.apply import UpdateOptions
from downpour.ps.core.consistency import MODES, consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Outcome, Push, Result
from downpour.ps.core.registry import forms
from downpour.ps.core.rules.hyperparameters import Hyperparameters, known_hyperparameters
from downpour.ps.core.rules.update_rules import OPTIMIZERS
from downpour.ps.core.schedules import SCHEDULES, schedule_of
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import POLICIES, compensation_of
from downpour.worker.plan.push_plan import PushPlan
from tests.support.cluster import Cluster, vector_layout, wait_until
from tests.support.toys.toy_algorithms import register

FLAGS = ("optimizer", "mode", "staleness_policy", "schedule", "codec")
ALL = ["--optimizer=toy", "--mode=toy:4", "--staleness-policy=toy", "--schedule=toy:1", "--codec=toy"]


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch.setitem)


def trained(mode: str = "async", staleness: str = "none", schedule: str = "constant", optimizer: str = "sgd") -> Shard:
    """A shard whose weights of 0 two workers have pushed gradients of 1 to, both computed from version 0, η = 1."""
    rule = Optimizer(optimizer, Hyperparameters(learning_rate=1.0), 3)
    policy, shape = compensation_of(staleness), schedule_of(schedule)
    shard = Shard(np.zeros(3, np.float32), rule, consistency_of(mode), policy, options=UpdateOptions(shape))
    for worker in range(2):
        shard.join(worker, 1)
    for worker in range(2):
        shard.push(Push(worker, 1, 1, 0), np.ones(3, np.float32))
    return shard


def weights(shard: Shard) -> list[float]:
    buffer, _ = shard.pull()
    return [float(value) for value in buffer.array]


@pytest.mark.usefixtures("toys")
def test_a_row_is_accepted_listed_and_free_of_advice() -> None:
    settings = parse(JobSettings, ALL, prog="test")
    assert {flag: getattr(settings, flag).partition(":")[0] for flag in FLAGS} == dict.fromkeys(FLAGS, "toy")
    assert warnings_of(settings) == [] and refusal_of_steps(settings) == ""
    assert "toy:LIMIT" in forms(MODES) and "toy:EVERY" in forms(SCHEDULES) and "toy" in forms(POLICIES)
    assert "gain" in known_hyperparameters()


@pytest.mark.usefixtures("toys")
def test_a_row_without_its_parameter_is_refused_with_the_form() -> None:
    with pytest.raises(ValueError, match="must be written toy:LIMIT"):
        consistency_of("toy")
    with pytest.raises(ValueError, match="toy must be given only --learning-rate, --gain"):
        Optimizer("toy", Hyperparameters(momentum=0.5), 1)
    with pytest.raises(ValueError, match="gain must be a finite number > 0"):
        Optimizer("toy", Hyperparameters(gain=-1.0), 1)


@pytest.mark.usefixtures("toys")
def test_an_optimizer_trains() -> None:
    shard = trained(optimizer="toy")
    assert weights(shard) == [-4.0] * 3
    assert shard.optimizer_state()["total"].tolist() == [2.0] * 3


@pytest.mark.usefixtures("toys")
def test_a_mode_trains() -> None:
    outcomes: list[Result] = []
    shard = trained("toy:4")
    assert weights(shard) == [-1.0] * 3 and shard.version == 1
    shard.observe(lambda push, result: outcomes.append(result))
    for seq in range(2, 12):
        shard.push(Push(0, 1, seq, shard.version), np.ones(3, np.float32))
    shard.push(Push(0, 1, 12, 0), np.ones(3, np.float32))
    assert outcomes[-1].outcome == Outcome.DROPPED and outcomes[-1].reason == "stale"


@pytest.mark.usefixtures("toys")
def test_a_compensation_trains() -> None:
    assert weights(trained(staleness="toy")) == [-1.5] * 3


@pytest.mark.usefixtures("toys")
def test_a_schedule_trains() -> None:
    assert weights(trained(schedule="toy:1")) == [-3.0] * 3


@pytest.mark.usefixtures("toys")
def test_a_codec_carries_a_gradient() -> None:
    codec, vector, out = codec_named("toy"), np.array([1, -2, 3], np.float32), np.empty(3, np.float32)
    payload = codec.encode(vector, np.random.default_rng(0))
    assert len(payload) == codec.size_bytes(3)
    codec.decode(payload, out)
    codec.deduct(payload, vector)
    assert out.tolist() == [1, -2, 3] and not vector.any()


@pytest.mark.usefixtures("toys")
def test_a_real_server_trains_with_all_of_them_and_a_hyperparameter_of_its_own(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        flags = [*ALL, "--workers=1", "--learning-rate=1", "--gain=4", f"--run-dir={cluster.run}", "--transport=grpc"]
        server = cluster.start("ps-0", "-m", "tests.support.toys.toy_algorithms", *flags)
        cluster.address = str(server.announcement()["address"])
        member = cluster.join(vector_layout(4))
        member.await_start(np.zeros(4, np.float32))
        member.pull()
        for _ in range(2):
            member.push_pull(np.ones(4, np.float32))
        wait_until(lambda: member.client.pull().flat.tolist() == [-4.0] * 4, "the pair of pushes is applied")
    finally:
        cluster.close()


@pytest.mark.parametrize("mode", [row.example for row in MODES.values()])
def test_the_workers_plan_follows_from_the_row(mode: str) -> None:
    from downpour.protos import parameter_server_pb2 as pb

    plan, policy = PushPlan.of(pb.JobDescription(mode=mode, push_every=1)), consistency_of(mode)
    assert (plan.payload, plan.push_every) == (policy.payload, policy.period)


def test_every_row_names_its_keras_class() -> None:
    selected = [(rule.keras, tuple(sorted(rule.keras_options.items()))) for rule in OPTIMIZERS.values()]
    assert all(name for name, _ in selected) and len(set(selected)) == len(selected)
