"""Scripts whose servers are killed in the middle of an epoch: `fit` continues, and each sample is used once."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripts import command, environment, server_of

pytestmark = pytest.mark.slow
EPOCHS, SAMPLES = 3, 800


@pytest.mark.parametrize(("shards", "victims"), [(1, [0]), (2, [0]), (2, [1, 0])])
def test_a_killed_server_loses_and_doubles_no_sample(tmp_path: Path, shards: int, victims: list[int]) -> None:
    arguments = (str(tmp_path), str(EPOCHS), str(SAMPLES), "0.01")
    begun = subprocess.Popen(
        command(tmp_path, "counted_fit.py", *arguments, workers=2, shards=shards, checkpoint_every="0.2s"),
        env=environment(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert begun.stdout is not None
        for victim in victims:
            assert any(line.startswith("BATCH 40") for line in begun.stdout)
            server_of(begun, victim).kill()
        _, errors = begun.communicate(timeout=120)
    finally:
        begun.kill()
    assert begun.returncode == 0, errors[-3000:]
    assert f"ps-{victims[0]} was killed by SIGKILL; restarted (1 of 3)" in errors
    assert "resumed from checkpoint" in errors
    for rank in (0, 1):
        report = json.loads((tmp_path / f"report-{rank}.json").read_text())
        assert report["begun"] == report["epochs"] == list(range(EPOCHS))
        assert report["uses"] == [EPOCHS] * SAMPLES
        assert report["iterations"] == EPOCHS * SAMPLES // 8
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(EPOCHS))


LOCAL: list[dict[str, Any]] = [
    {"push_every": 4},
    {"push_every": 4, "fetch_every": 4},
    {"overlap": True},
    {"mode": "localsgd:4"},
    {"mode": "easgd:0.5,4"},
]


@pytest.mark.parametrize("settings", LOCAL, ids=str)
def test_local_steps_lose_and_double_no_sample_when_a_server_is_killed(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    arguments = (str(tmp_path), str(EPOCHS), str(SAMPLES), "0.01", "arrays")
    begun = subprocess.Popen(
        command(tmp_path, "counted_fit.py", *arguments, workers=2, checkpoint_every="0.2s", **settings),
        env=environment(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert begun.stdout is not None
        assert any(line.startswith("EPOCH 1") for line in begun.stdout)
        assert any(line.startswith("BATCH 40") for line in begun.stdout)
        server_of(begun, 0).kill()
        _, errors = begun.communicate(timeout=240)
    finally:
        begun.kill()
    assert begun.returncode == 0, errors[-3000:]
    assert "resumed from checkpoint" in errors
    for rank in (0, 1):
        report = json.loads((tmp_path / f"report-{rank}.json").read_text())
        assert report["begun"] == report["epochs"] == list(range(EPOCHS))
        if not str(settings.get("mode")).startswith("easgd"):  # whose replicas only approach each other
            assert report["uses"] == [EPOCHS] * SAMPLES
        assert report["iterations"] == EPOCHS * SAMPLES // 8
