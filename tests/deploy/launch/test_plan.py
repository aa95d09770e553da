"""The plan of a cluster: what is started, with which arguments, in which order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.deploy.config import TrainSettings, cores
from downpour.deploy.launch.environment import child_environment
from downpour.deploy.launch.plan import SET_BY_FLAGS, plan
from downpour.protos.settings import parse
from downpour.ps.config import JobSettings, ServerSettings
from downpour.ps.core.rules.update_rules import OPTIMIZERS
from downpour.worker.config import WorkerSettings
from tests.support.toys.quadrants import write_quadrants

ADDRESSES = {f"ps-{shard}": f"127.0.0.1:{4000 + shard}" for shard in range(8)}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DOWNPOUR_"):
            monkeypatch.delenv(name)


def settings_of(*argv: str) -> TrainSettings:
    return parse(TrainSettings, argv, "prog")


@given(
    workers=st.integers(1, 9), shards=st.integers(1, 8), epochs=st.integers(1, 99), seed=st.integers(0, 2**32 - 1),
    optimizer=st.sampled_from(list(OPTIMIZERS)), rate=st.none() | st.floats(1e-9, 1e3), split=st.floats(0, 0.9),
)  # fmt: skip
def test_the_processes_that_start_are_the_cluster_that_was_asked_for(
    workers: int, shards: int, epochs: int, seed: int, optimizer: str, rate: float | None, split: float
) -> None:
    asked = TrainSettings.model_validate(
        {"workers": workers, "shards": shards, "epochs": epochs, "seed": seed, "optimizer": optimizer,
         "learning_rate": rate, "validation_split": split}
    )  # fmt: skip
    specs = plan(asked, "runs/one")
    assert [spec.name for spec in specs] == [f"ps-{k}" for k in range(shards)] + [f"worker-{k}" for k in range(workers)]
    commands = [spec.command("python", ADDRESSES) for spec in specs]
    first = parse(ServerSettings, commands[0][4:], "prog")
    assert {name: getattr(first, name) for name in JobSettings.model_fields} == {
        name: getattr(asked, name) for name in JobSettings.model_fields
    }
    assert (first.run_dir, first.bind, first.shard) == ("runs/one", "127.0.0.1:0", 0)
    for shard, command in enumerate(commands[1:shards], 1):
        server = parse(ServerSettings, command[4:], "prog")
        assert (server.shard, server.coordinator) == (shard, ADDRESSES["ps-0"])
    for number, command in enumerate(commands[shards:]):
        worker = parse(WorkerSettings, command[4:], "prog")
        assert (worker.worker, worker.server, worker.model, worker.dataset) == (
            number,
            ADDRESSES["ps-0"],
            None,
            None,
        )


def test_a_process_starts_after_the_servers_it_needs() -> None:
    known: set[str] = set()
    for spec in plan(settings_of("--shards=3", "--workers=4"), "run"):
        assert set(spec.needs) <= known
        known.add(spec.name)


def test_a_command_without_its_address_is_not_made() -> None:
    with pytest.raises(KeyError, match="ps-0"):
        plan(settings_of(), "run")[-1].command("python", {})


def test_workers_receive_settings_that_servers_do_not_send(tmp_path: Path) -> None:
    data = tmp_path / "own.npz"
    write_quadrants(data)
    worker = plan(settings_of("--model=os:getcwd", f"--dataset={data}", "--threads=3", "--xla=off"), "run")[-1]
    settings = parse(WorkerSettings, worker.command("python", ADDRESSES)[4:], "prog")
    assert (settings.model, settings.dataset) == ("os:getcwd", str(data))
    assert (settings.threads, settings.xla) == (3, "off")
    assert worker.env["OMP_NUM_THREADS"] == "3"


def test_workers_default_to_the_cores_and_at_least_two() -> None:
    assert settings_of().workers == max(2, cores())
    assert JobSettings.model_fields["workers"].default == 2


def test_workers_and_servers_have_restarts_of_their_own() -> None:
    specs = plan(settings_of("--worker-restarts=7", "--shards=2"), "run")
    assert {spec.restarts for spec in specs if spec.role == "worker"} == {7}
    assert {spec.restarts for spec in specs if spec.role == "ps"} == {settings_of().server_restarts}


def test_another_shard_receives_what_it_does_not_learn_from_the_coordinator() -> None:
    specs = plan(settings_of("--shards=3", "--reconnect-s=5", "--transport=grpc", "--log-format=json"), "run")
    for spec in specs[1:3]:
        server = parse(ServerSettings, spec.command("python", ADDRESSES)[4:], "prog")
        assert (server.reconnect_s, server.transport, server.log_format) == (5.0, "grpc", "json")


def test_variables_meant_for_the_launcher_do_not_reach_a_process_past_its_flags() -> None:
    inherited = {
        "DOWNPOUR_EPOCHS": "3",
        "DOWNPOUR_SHARD": "5",
        "DOWNPOUR_CALL_TIMEOUT_S": "9",
        "PATH": "/bin",
        "A": "1",
    }
    found = child_environment(inherited, {"A": "2"}, SET_BY_FLAGS)
    assert "DOWNPOUR_EPOCHS" not in found and "DOWNPOUR_SHARD" not in found
    assert (found["DOWNPOUR_CALL_TIMEOUT_S"], found["PATH"], found["A"]) == ("9", "/bin", "2")
