"""Which GPUs a worker sees: a pure function of a list of devices, which no test needs to have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from downpour.deploy.config import TrainSettings
from downpour.deploy.launch.gpus import devices_here, listed_by_driver, listed_in
from downpour.deploy.launch.plan import TooFewGpus, assigned_gpus, plan
from downpour.deploy.scripts.script_launcher import script_plan
from downpour.deploy.scripts.script_settings import RunSettings
from downpour.protos.settings import parse
from downpour.worker.config import WorkerSettings
from tests.support.paths import ROOT

DEVICES = st.lists(st.integers(0, 99).map(str), max_size=16, unique=True)
TWO = "GPU 0: NVIDIA A100 (UUID: GPU-aa)\nGPU 1: NVIDIA A100 (UUID: GPU-bb)\n"


@given(
    workers=st.integers(1, 40), devices=DEVICES, per_worker=st.none() | st.sampled_from([0, 0.1, 0.25, 0.5, 1, 2, 3])
)
def test_no_device_is_given_to_more_workers_than_it_has_parts(
    workers: int, devices: list[str], per_worker: float | None
) -> None:
    try:
        assigned = assigned_gpus(workers, devices, per_worker)
    except TooFewGpus:
        assert per_worker and workers * per_worker > len(devices) - max(per_worker - 1, 0) - 1e-9
        return
    assert len(assigned) == workers
    if per_worker is None and not devices:
        assert set(assigned) == {None}
        return
    expected = 1 if per_worker is None or 0 < per_worker < 1 else int(per_worker)
    assert all(given is not None and len(set(given)) == expected for given in assigned)
    shares = Counter(device for given in assigned for device in given or ())
    assert set(shares) <= set(devices)
    if per_worker:
        assert all(count * min(per_worker, 1) <= 1 + 1e-9 for count in shares.values())
    elif per_worker is None:
        assert max(shares.values()) - min(shares.get(device, 0) for device in devices) <= 1


def test_servers_see_no_gpu_and_workers_find_those_that_were_asked_for() -> None:
    settings = parse(TrainSettings, ["--workers=3", "--shards=2", "--gpus-per-worker=0.5"], "prog")
    specs = {spec.name: spec for spec in plan(settings, "run", devices=["4", "7"])}
    assert [specs[name].env["CUDA_VISIBLE_DEVICES"] for name in ("ps-0", "ps-1")] == ["", ""]
    seen = [specs[f"worker-{number}"].env["CUDA_VISIBLE_DEVICES"] for number in range(3)]
    assert seen == ["4", "7", "4"]
    command = specs["worker-2"].command("python", {"ps-0": "127.0.0.1:1"})
    assert parse(WorkerSettings, command[4:], "prog").gpus == 1


def test_a_job_without_the_setting_shares_the_gpus_and_does_not_depend_on_them() -> None:
    settings = parse(TrainSettings, ["--workers=2"], "prog")
    with_one, without = plan(settings, "run", devices=["0"]), plan(settings, "run")
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in with_one if spec.role == "worker"] == ["0", "0"]
    assert [spec.args for spec in with_one] == [spec.args for spec in without]
    assert all("CUDA_VISIBLE_DEVICES" not in spec.env for spec in without if spec.role == "worker")


def test_the_workers_of_a_script_have_gpus_as_well() -> None:
    settings = RunSettings(workers=2, gpus_per_worker=1)
    specs = script_plan(settings, "run", ["train.py"], devices=["0", "1", "2"])
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in specs] == ["", "0", "1"]
    for wrong in (1.5, -1, 2):
        for kind in (RunSettings, TrainSettings):
            with pytest.raises(ValidationError):
                kind(gpus_per_worker=wrong)


def test_devices_are_read_as_cuda_reads_them() -> None:
    assert listed_in("") == listed_in("-1") == listed_in("NoDevFiles") == []
    assert listed_in("2, GPU-ab,0") == ["2", "GPU-ab", "0"]
    assert listed_in("1,-1,0") == ["1"]
    assert listed_by_driver(TWO) == ["0", "1"]
    assert listed_by_driver("No devices found.\n") == []
    mig = "GPU 0: NVIDIA H100 (UUID: GPU-aa)\n  MIG 1g.10gb     Device  0: (UUID: MIG-1)\n"
    assert listed_by_driver(mig + "GPU 1: NVIDIA H100 (UUID: GPU-bb)\n") == ["MIG-1", "GPU-bb"]


def test_devices_are_found_without_tensorflow(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{TWO}'\n")
    program.chmod(0o755)
    assert devices_here({"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": "3"}) == ["3"]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    found = subprocess.run(
        [sys.executable, "-c",
         "import os, sys; from downpour.deploy.launch.gpus import devices_here; print(devices_here(os.environ));"
         "assert 'tensorflow' not in sys.modules"],
        env={"PATH": path, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "['0', '1']\n"
    files = tmp_path / "dev"
    files.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (files / name).touch()
    assert devices_here({"PATH": "/nonexistent"}, files) == ["0", "1"]
    assert devices_here({"PATH": "/nonexistent"}, tmp_path / "none") == []


def downpour(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0,1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-P", "-m", "downpour.deploy.cli", *arguments],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_dry_run_shows_the_assignment_and_a_refusal_leaves_nothing(tmp_path: Path) -> None:
    shown = downpour("train", "--dry-run", "--workers=4", "--gpus-per-worker=0.5", folder=tmp_path)
    first_words = [line.split()[:2] for line in shown.stdout.splitlines()]
    assert first_words == [["ps-0:", "CUDA_VISIBLE_DEVICES=''"]] + [
        [f"worker-{number}:", f"CUDA_VISIBLE_DEVICES={number % 2}"] for number in range(4)
    ]
    refused = downpour("train", "--workers=3", "--gpus-per-worker=1", folder=tmp_path)
    assert refused.returncode == 2 and "--gpus-per-worker 1 must leave a GPU for each of 3 workers" in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(180)
def test_a_worker_that_does_not_find_its_gpu_is_refused_before_its_first_step(tmp_path: Path) -> None:
    job = ("--model=perceptron", "--dataset=and", "--workers=2", "--gpus-per-worker=1", "--xla=off")
    done = downpour("train", *job, folder=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "--gpus-per-worker demands 1 of the devices" in done.stdout + done.stderr
