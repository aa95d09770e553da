"""`downpour run` under TF_CONFIG: each container of a script's cluster becomes the process that the variable says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from downpour.deploy.scripts.script_launcher import script_plan
from downpour.deploy.scripts.script_settings import RunSettings
from downpour.deploy.scripts.script_task import command_line
from downpour.deploy.scripts.tf_config import BadTFConfig, read
from downpour.protos.settings import parse
from downpour.ps.config import ServerSettings
from downpour.worker.config import ScriptSettings
from tests.support.cluster import Process
from tests.support.paths import ROOT

SCRIPT = ["train.py", "--its-own"]
CLUSTER = {"ps": ["a:1", "b:1"], "chief": ["c:1"], "worker": ["d:1", "e:1"]}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DOWNPOUR_"):
            monkeypatch.delenv(name)


def variable(kind: str, index: int = 0, cluster: dict[str, list[str]] = CLUSTER) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


def line(kind: str, index: int = 0, *flags: str, **environ: str) -> list[str]:
    settings = parse(RunSettings, flags, "prog")
    return command_line(read(variable(kind, index)), settings, SCRIPT, environ)


def test_server_0_waits_for_the_workers_that_the_cluster_lists() -> None:
    module, *flags = line("ps", 0, "--mode=ssp:2")
    server = parse(ServerSettings, flags, "prog")
    assert module == "downpour.ps" and server.script
    assert (server.workers, server.shards, server.mode) == (3, 2, "ssp:2")
    assert (server.bind, server.advertise) == ("[::]:1", "a:1")


def test_flags_override_the_size_of_the_cluster() -> None:
    assert parse(ServerSettings, line("ps", 0, "--workers=7")[1:], "prog").workers == 7


def test_the_other_servers_follow_it() -> None:
    server = parse(ServerSettings, line("ps", 1)[1:], "prog")
    assert (server.shard, server.coordinator, server.script) == (1, "a:1", False)


@pytest.mark.parametrize(("kind", "index", "number"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)])
def test_a_worker_runs_the_script_and_worker_0_ends_the_job(kind: str, index: int, number: int) -> None:
    module, *flags = line(kind, index, "--threads=2")
    assert module == "downpour.worker.fit" and flags[-len(SCRIPT) :] == SCRIPT
    worker = parse(ScriptSettings, flags[: -len(SCRIPT)], "prog")
    assert (worker.server, worker.worker, worker.threads, worker.end_job) == ("a:1", number, 2, number == 0)


def test_a_variable_overrides_the_addresses_of_the_cluster() -> None:
    assert not any(flag.startswith("--server") for flag in line("worker", DOWNPOUR_SERVER="other:1"))


def test_a_script_has_no_evaluator() -> None:
    with pytest.raises(BadTFConfig, match=r"^TF_CONFIG must .*; received evaluator\. Remove that replica"):
        command_line(read(variable("evaluator")), parse(RunSettings, [], "prog"), SCRIPT, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "must be JSON"), (variable("chief"), "SCRIPT must be")],
)
def test_an_invalid_command_line_is_explained_in_one_line(text: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "downpour.deploy.cli", "run", "nothing.py"],
        env={**os.environ, "TF_CONFIG": text, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("downpour run: ") and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_cluster_started_one_by_one_runs_a_script_and_ends_with_it(tmp_path: Path) -> None:
    cluster: dict[str, list[str]] = {"ps": ["127.0.0.1:0"], "chief": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"]}
    script = [str(ROOT / "tests/scripts/mnist_dense.py"), "2000", "1", str(ROOT / "worker/data/mnist.npz")]

    def task(kind: str, **environ: Any) -> Process:
        env = {**environ, "TF_CONFIG": variable(kind, 0, cluster), "PYTHONPATH": str(ROOT)}
        return Process(tmp_path / f"{kind}.log", "-m", "downpour.deploy.cli", "run", *script, env=env)

    started = [task("ps", DOWNPOUR_RUNS_DIR=str(tmp_path / "runs"))]
    try:
        cluster["ps"] = [str(started[0].announcement()["address"])]
        started += [task("chief"), task("worker")]
        for process in reversed(started):
            assert process.wait(180) == 0, process.errors
        output = started[1].child.stdout
        assert output is not None and b"test [" in output.read()
    finally:
        for process in started:
            process.kill()
    summary = json.loads((tmp_path / "runs" / "latest" / "summary.json").read_text())
    assert summary["workers"] == 2 and summary["updates"] > 0


@pytest.mark.parametrize(
    ("inherited", "expected"), [({}, "7"), ({"PYTHONHASHSEED": "random"}, "7"), ({"PYTHONHASHSEED": "3"}, "3")]
)
def test_all_workers_of_a_script_order_sets_alike(
    inherited: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    for name, value in inherited.items():
        monkeypatch.setenv(name, value)
    specs = script_plan(RunSettings(workers=3, seed=7), "runs/one", ["script.py"])
    assert [spec.env["PYTHONHASHSEED"] for spec in specs if spec.role == "worker"] == [expected] * 3
