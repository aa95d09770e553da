"""TF_CONFIG: what platforms set becomes flags; what is malformed is refused with words that help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.deploy.scripts.tf_config import COMMAND_OF, BadTFConfig, arguments, read
from downpour.protos.settings import parse
from downpour.ps.config import ServerSettings
from downpour.worker.config import WorkerSettings
from tests.support.paths import ROOT

# As each platform's documentation shows it, but for the names.
KUBEFLOW = {
    "cluster": {
        "chief": ["job-chief-0.space.svc:2222"],
        "ps": ["job-ps-0.space.svc:2222", "job-ps-1.space.svc:2222"],
        "worker": ["job-worker-0.space.svc:2222", "job-worker-1.space.svc:2222"],
    },
    "environment": "cloud",
}
KUBEFLOW_DYNAMIC = {
    "sparseCluster": {"ps": ["job-ps-0.space.svc:2222"], "worker": {"3": "job-worker-3.space.svc:2222"}}
}
KUBEFLOW_DYNAMIC_PS = {"sparseCluster": {"worker": {}, "ps": ["a-ps-1-ps-1.space.svc:2222"]}}
VERTEX = {
    "cluster": {
        "chief": ["pool-0-0:2222"],
        "worker": ["pool-1-0:2222"],
        "ps": ["pool-2-0:2222"],
        "evaluator": ["pool-3-0:2222"],
    },
    "environment": "cloud",
    "job": "{...}",
}
SAGEMAKER = {
    "cluster": {"master": ["algo-1:2222"], "ps": ["algo-1:2223", "algo-2:2223"], "worker": ["algo-2:2222"]},
    "environment": "cloud",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DOWNPOUR_"):
            monkeypatch.delenv(name)


def text_of(config: dict[str, Any], kind: str, index: int | str = 0) -> str:
    return json.dumps({**config, "task": {"type": kind, "index": index}})


def server_of(config: dict[str, Any], index: int, *given: str) -> ServerSettings:
    argv = arguments("ps", {"TF_CONFIG": text_of(config, "ps", index)}, given)
    return parse(ServerSettings, argv, "prog")


def worker_of(config: dict[str, Any], kind: str, index: int = 0, *given: str) -> WorkerSettings:
    argv = arguments("worker", {"TF_CONFIG": text_of(config, kind, index)}, given)
    return parse(WorkerSettings, argv, "prog")


def test_server_0_coordinates_and_knows_the_size_of_the_cluster() -> None:
    first = server_of(KUBEFLOW, 0)
    assert (first.shard, first.coordinator, first.shards, first.workers) == (0, None, 2, 3)
    assert (first.bind, first.advertise) == ("[::]:2222", "job-ps-0.space.svc:2222")


def test_the_other_servers_follow_it() -> None:
    second = server_of(KUBEFLOW, 1)
    assert (second.shard, second.coordinator) == (1, "job-ps-0.space.svc:2222")
    assert (second.bind, second.advertise) == ("[::]:2222", "job-ps-1.space.svc:2222")


def test_a_server_of_a_sparse_cluster_derives_the_coordinator() -> None:
    first = server_of({"sparseCluster": {"worker": {}, "ps": ["a-ps-0.space.svc:2222"]}}, 0, "--shards=2")
    assert (first.shard, first.coordinator, first.shards, first.workers) == (0, None, 2, 2)
    second = server_of(KUBEFLOW_DYNAMIC_PS, 1)
    assert (second.shard, second.advertise) == (1, "a-ps-1-ps-1.space.svc:2222")
    assert second.coordinator == "a-ps-1-ps-0.space.svc:2222"


def test_a_lone_server_whose_name_is_not_an_address_needs_the_coordinator(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        server_of({"sparseCluster": {"worker": {}, "ps": ["b:1"]}}, 1)
    assert "and this one --coordinator with its address" in capsys.readouterr().err


def test_ports_may_be_the_same_on_several_hosts_and_differ_on_one() -> None:
    assert len(read(text_of({"cluster": {"ps": ["a:1", "b:1", "a:2"]}}, "ps", 2)).cluster["ps"]) == 3


def test_a_server_on_loopback_listens_only_on_loopback() -> None:
    config = {"cluster": {"ps": ["127.0.0.1:0"], "worker": ["127.0.0.1:1"]}}
    server = server_of(config, 0)
    assert (server.bind, server.advertise) == ("127.0.0.1:0", None)


@pytest.mark.parametrize(
    ("config", "kind", "index", "number"),
    [
        (KUBEFLOW, "chief", 0, 0),
        (KUBEFLOW, "worker", 0, 1),
        (KUBEFLOW, "worker", 1, 2),
        (KUBEFLOW, "evaluator", 0, 3),
        (KUBEFLOW_DYNAMIC, "worker", 3, 3),
        (KUBEFLOW_DYNAMIC, "evaluator", 0, 1),
        (VERTEX, "chief", 0, 0),
        (VERTEX, "worker", 0, 1),
        (VERTEX, "evaluator", 0, 2),
        (SAGEMAKER, "master", 0, 0),
        (SAGEMAKER, "worker", 0, 1),
    ],
)
def test_every_worker_has_a_number_of_its_own_and_knows_the_coordinator(
    config: dict[str, Any], kind: str, index: int, number: int
) -> None:
    worker = worker_of(config, kind, index)
    cluster = config.get("cluster") or config["sparseCluster"]
    assert worker.server == cluster["ps"][0]
    assert worker.worker == number
    assert worker.evaluator == (kind == "evaluator")


def test_an_evaluator_without_known_workers_is_assigned_a_number() -> None:
    worker = worker_of({"cluster": {"ps": ["a:1"]}}, "evaluator")
    assert worker.worker is None and worker.evaluator


def test_an_index_may_be_written_as_text() -> None:
    assert read(text_of(KUBEFLOW, "worker", "1")).index == 1


def test_flags_override_variables_which_override_tf_config() -> None:
    environ = {"TF_CONFIG": text_of(KUBEFLOW, "ps"), "DOWNPOUR_WORKERS": "9"}
    argv = arguments("ps", environ, ["--bind=127.0.0.1:0", "--epochs=3"])
    assert not any(flag.startswith("--workers") for flag in argv)
    settings = parse(ServerSettings, argv, "prog")
    assert (settings.bind, settings.epochs, settings.shards) == ("127.0.0.1:0", 3, 2)


def test_without_the_variable_nothing_is_added() -> None:
    assert arguments("ps", {}, ["--epochs=3"]) == ["--epochs=3"]
    assert arguments("worker", {"TF_CONFIG": "  "}, []) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("[]", "must be a JSON object"),
        ("{}", 'must have a "cluster"'),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker"}}', "must have a ps in its cluster"),
        ('{"cluster": {"ps": []}, "task": {"type": "ps"}}', "must have a ps in its cluster"),
        ('{"cluster": {"ps": ["a"]}, "task": {"type": "ps"}}', 'HOST:PORT for "ps"; received ["a"]'),
        ('{"cluster": {"ps": "a:1"}, "task": {"type": "ps"}}', 'must have a list of HOST:PORT for "ps"'),
        ('{"cluster": {"ps": [1]}, "task": {"type": "ps"}}', 'must have a list of HOST:PORT for "ps"'),
        ('{"cluster": {"ps": ["a:1"]}}', 'must have a "task"'),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "server"}}', '"type" is one of ps, chief'),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": -1}}', '"index" is an integer of at least 0'),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 1}}', "must list its own task"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "worker", "index": 0}}', "its cluster, which has 1 ps;"),
        ("[" * 100_000, "must be JSON"),
        ('{"cluster": []}', 'must have a "cluster", an object of lists of HOST:PORT; received []'),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": ["ps"], "index": 0}}', '"type" is one of ps, chief'),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": true}}', '"index" is an integer of at least 0'),
        ('{"cluster": {"ps": {"-1": "a:1", "0": "b:1"}}, "task": {"type": "ps"}}', 'a list of HOST:PORT for "ps"'),
        ('{"cluster": {"ps": ["grpc://a:1"]}, "task": {"type": "ps"}}', 'a list of HOST:PORT for "ps"'),
        ('{"cluster": {"ps": {"0": "a:1", "2": "b:1"}}, "task": {"type": "ps"}}', "from 0 without gaps"),
        ('{"cluster": {"ps": ["a:1", "a:1"]}, "task": {"type": "ps"}}', "each with a different address"),
        ('{"cluster": {"ps": ["a:0", "b:0"]}, "task": {"type": "ps", "index": 1}}', "must give the port of ps 0"),
        ('{"cluster": {"ps": ["a:1"], "chief": ["b:1"], "master": ["c:1"]}, "task": {"type": "ps"}}', "not both"),
        ('{"sparseCluster": {"ps": [], "worker": {}}, "task": {"type": "chief"}}', "gives its address only to workers"),
    ],
)
def test_a_malformed_tf_config_is_refused_with_the_requirement(text: str, message: str) -> None:
    with pytest.raises(BadTFConfig, match="^TF_CONFIG must .*; received .*Correct it, or unset it") as refusal:
        read(text)
    assert message in str(refusal.value)


def test_the_task_of_another_command_is_refused() -> None:
    with pytest.raises(BadTFConfig, match="`downpour worker` runs this one; received chief"):
        arguments("ps", {"TF_CONFIG": text_of(KUBEFLOW, "chief")}, [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["a:1", "ps", "worker"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["cluster", "task", "type", "index", "ps", "worker", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


# Random objects rarely get past the cluster: this one is whole but for its task.
TASKS = JSON.map(lambda task: {"cluster": {"ps": ["a:1"], "worker": ["b:1"]}, "task": task})


@given(JSON | TASKS)
def test_any_tf_config_is_accepted_or_refused(value: Any) -> None:
    try:
        task = read(json.dumps(value))
    except BadTFConfig:
        return
    assert task.command == COMMAND_OF[task.kind] and task.flags


@pytest.mark.parametrize("command", ["ps", "worker"])
def test_an_invalid_command_line_is_explained_in_one_line(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "downpour.deploy.cli", command],
        env={**os.environ, "TF_CONFIG": '{"cluster": {}}', "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"downpour {command}: TF_CONFIG must have a ")
    assert done.stderr.count("\n") == 1
