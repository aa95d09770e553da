"""The optimizers that a script brings, and the learning rates that worker 0 sets."""

from __future__ import annotations

import json

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict, Unsupported
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.admission import settings_with_optimizers
from downpour.ps.coordinator.job_factory import new_coordinator
from tests.support.pure.pure_fit import MOMENTUM, PureFit, rates


def test_a_script_brings_its_optimizer_and_the_shards_receive_it_with_its_rates() -> None:
    job = PureFit()
    job.join(0)
    (command,) = [command for command in job.commands if command.settings]
    settings = json.loads(command.settings)
    assert (settings["optimizer"], settings["learning_rate"], settings["momentum"]) == ("momentum", 0.1, 0.5)
    assert list(command.learning_rates) == [rates(0.1)]
    assert [command.HasField("layout") for command in job.commands].index(True) > job.commands.index(command)


def test_the_hyperparameters_of_the_server_do_not_mix_with_those_of_the_script() -> None:
    server = ServerSettings.model_validate({"optimizer": "adam", "script": True, "beta_1": 0.5})
    settings = settings_with_optimizers(server, [pb.OptimizerSpec(name="momentum", hyperparameters=MOMENTUM)])
    assert (settings.optimizer, settings.model_dump()["beta_1"]) == ("momentum", None)
    assert settings.session_s == server.session_s


@pytest.mark.parametrize(
    "spec",
    [
        pb.OptimizerSpec(name="muon"),
        pb.OptimizerSpec(name="sgd", hyperparameters={"beta_1": 0.9}),
        pb.OptimizerSpec(name="sgd", hyperparameters={"learning_rate": -1.0}),
    ],
)
def test_an_optimizer_that_the_servers_do_not_have_is_refused_and_begins_nothing(spec: pb.OptimizerSpec) -> None:
    job = PureFit()
    with pytest.raises(Unsupported):
        job.join(0, optimizers=[spec])
    job.deliver()
    assert job.work.fit_call == 0 and not job.commands and not len(job.state.membership)


def test_all_workers_bring_the_same_optimizer() -> None:
    job = PureFit()
    job.join(0)
    with pytest.raises(JobConflict, match="the same optimizers, momentum; received adam"):
        job.join(1, optimizers=[pb.OptimizerSpec(name="adam", learning_rates=rates(0.1))])


@pytest.mark.parametrize("mode", ["easgd", "local_sgd"])
def test_a_mode_without_gradients_is_refused_when_the_server_starts(mode: str) -> None:
    with pytest.raises((Unsupported, ValueError)):
        new_coordinator(ServerSettings(mode=mode, script=True), "job-1", lambda: 1)


def test_only_worker_0_sets_learning_rates() -> None:
    job = PureFit()
    job.start()
    table = rates(0.05, 0.01)
    job.coordinator.set_rates(pb.SetLearningRatesRequest(session=job.sessions[0], rates=[table]), job.now)
    job.deliver()
    assert list(job.commands[-1].learning_rates) == [table]
    before = len(job.commands)
    with pytest.raises(InvalidRequest, match="worker 0 must set the learning rate; received it from 1"):
        job.coordinator.set_rates(pb.SetLearningRatesRequest(session=job.sessions[1], rates=[table]), job.now)
    unsorted = pb.LearningRates(updates=[1, 0], rates=[0.1, 0.1])
    with pytest.raises(InvalidRequest):
        job.coordinator.set_rates(pb.SetLearningRatesRequest(session=job.sessions[0], rates=[unsorted]), job.now)
    job.deliver()
    assert len(job.commands) == before
