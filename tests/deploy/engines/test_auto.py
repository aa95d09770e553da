"""`downpour auto`: real processes with the variables of an engine that starts one command on each node."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

AUTO = [sys.executable, "-P", "-m", "downpour.deploy.cli", "auto"]
TINY = ["--model=perceptron", "--dataset=and", "--epochs=2", "--xla=off"]


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOWNPOUR_", "SLURM_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.timeout(180)
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["SkyPilot", "dstack"])
def test_two_nodes_train_together(engine: str, tmp_path: Path) -> None:
    port = free_port()
    running = []
    for rank in range(2):
        variables = (
            {"SKYPILOT_NODE_RANK": str(rank), "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.1"}
            if engine == "SkyPilot"
            else {"DSTACK_NODE_RANK": str(rank), "DSTACK_NODES_NUM": "2", "DSTACK_MASTER_NODE_IP": "127.0.0.1"}
        )
        folder = tmp_path / str(rank)  # no shared file system
        folder.mkdir()
        running.append(
            subprocess.Popen(
                [*AUTO, *TINY, f"--port={port}", "--insecure"],
                env=environment(**variables),
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )  # fmt: skip
        )
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(outputs)
    assert all(f"downpour auto: found {engine}" in output for output in outputs)
    summary = json.loads((tmp_path / "0" / "runs" / "latest" / "summary.json").read_text())
    assert summary["status"] == "ended" and summary["workers"] == 2


@pytest.mark.timeout(180)
def test_without_an_engine_all_processes_run_here(tmp_path: Path) -> None:
    done = subprocess.run(
        [*AUTO, *TINY, "--workers=1"], env=environment(), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "found no engine: all processes run on this machine" in done.stderr


def test_what_does_not_fit_the_place_is_refused(tmp_path: Path) -> None:
    def refused(*flags: str, **variables: str) -> str:
        done = subprocess.run(
            [*AUTO, *TINY, *flags],
            env=environment(**variables),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2, done.stderr
        assert not list(tmp_path.iterdir())
        return done.stderr

    step = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "3", "SLURM_NNODES": "1"}
    assert "--workers must be the number of tasks" in refused("--workers=4", **step)
    assert "--ntasks=5" in refused("--shards=3", **step)
    assert "srun downpour slurm" in refused(SLURM_JOB_ID="1")
    assert "TF_CONFIG" in refused("train.py", TF_CONFIG="{}")
