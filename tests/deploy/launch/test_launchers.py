"""Every launcher of the registry keeps the contract of launcher_contract.py, and a new one is a single row."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from downpour.bench.speed import launchers as launchers_bench
from downpour.deploy import cli
from downpour.deploy.config import TrainSettings
from downpour.deploy.launch.plan import plan
from downpour.deploy.launch.started_job import LauncherEntry, LaunchRequest, StartedJob, await_address, read_summary
from downpour.deploy.launchers import LAUNCHERS, start_with_tf_config
from downpour.protos.settings import parse
from tests.support.paths import ROOT
from tests.support.processes.launcher_contract import check_contract

ON_THIS_MACHINE = [
    name for name, entry in LAUNCHERS.items() if not entry.in_containers and not entry.engine and name != "TF_CONFIG"
]
TINY_JOB = ("--model=perceptron", "--dataset=and", "--epochs=2", "--xla=off", "--checkpoint-every=off")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ON_THIS_MACHINE)
def test_the_contract_holds(name: str, tmp_path: Path) -> None:
    check_contract(LAUNCHERS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_contract_holds_with_tf_config_and_the_evaluator_only_evaluates(tmp_path: Path) -> None:
    entry = LAUNCHERS["TF_CONFIG"]
    assert entry.start is start_with_tf_config
    with_evaluator = LauncherEntry(entry.description, partial(start_with_tf_config, evaluator=True))
    run = check_contract(with_evaluator, tmp_path)
    assert set(np.load(run / "trace.npy")["worker"]) == {0, 1}
    assert "test loss" in (tmp_path / "evaluator-0.log").read_text()


@contextmanager
def start_plan(request: LaunchRequest) -> Iterator[StartedJob]:
    """The toy launcher: starts the processes of a plan one after the other."""
    run_dir = request.folder / "run"
    run_dir.mkdir()
    settings = parse(TrainSettings, [f"--workers={request.workers}", *request.flags], "toy")
    addresses: dict[str, str] = {}
    processes: dict[str, subprocess.Popen[bytes]] = {}
    with ExitStack() as stack:
        for spec in plan(settings, str(run_dir)):
            log = request.folder / f"{spec.name}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    spec.command(sys.executable, addresses), stdout=output, stderr=output, cwd=ROOT
                )
            processes[spec.name] = stack.enter_context(process)
            stack.callback(process.kill)
            if spec.role == "ps":
                addresses[spec.name] = await_address(process, log)
        yield StartedJob(processes, lambda: addresses["ps-0"], lambda: read_summary(run_dir), run_dir)


def toy_command(argv: list[str], folder: Path) -> int:
    with LAUNCHERS["toy"].start(LaunchRequest(folder, tuple(argv), workers=1)) as job:
        job.wait(120.0)
    return 0


@pytest.mark.timeout(180)
def test_a_launcher_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = LauncherEntry("start a plan process by process", start_plan, lambda argv: toy_command(argv, tmp_path))
    monkeypatch.setitem(LAUNCHERS, "toy", row)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    listed = [line.split(maxsplit=1) for line in cli.usage().splitlines()]
    assert ["toy", "start a plan process by process"] in listed
    assert {"toy", "toy, gRPC only"} <= launchers_bench.measurements(argparse.Namespace(epochs=1, compose=None)).keys()
    assert cli.main(["toy", *TINY_JOB]) == 0, [path.read_text() for path in tmp_path.glob("*.log")]
    summary = read_summary(tmp_path / "run")
    assert summary["status"] == "ended" and summary["updates"] > 0
