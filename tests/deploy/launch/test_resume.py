"""`downpour train --resume`: what holds of an earlier run, and that going on with it loses nothing."""

from __future__ import annotations

import json
import signal
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.deploy.config import TrainSettings
from downpour.deploy.launch.plan import plan
from downpour.deploy.launch.resume import CannotResume, resumed
from downpour.ps.config import ServerSettings
from downpour.ps.monitoring.summary import configuration
from downpour.ps.storage.checkpoint_file import newest
from tests.support.cluster import Process, wait_until
from tests.support.processes.restarts import checkpointed

pytestmark = pytest.mark.slow


def begun(folder: Path, **settings: Any) -> Path:
    """A run directory as a server leaves it."""
    content = configuration(ServerSettings(**settings), {})
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_the_settings_of_the_run_hold_unless_others_are_given(tmp_path: Path) -> None:
    run = begun(tmp_path, optimizer="adam", epochs=7, workers=5, shards=2, learning_rate=0.25)
    settings, run_dir = resumed(TrainSettings(resume=str(run), workers=3, shards=4))
    assert run_dir == run
    assert (settings.optimizer, settings.epochs, settings.learning_rate) == ("adam", 7, 0.25)
    assert (settings.workers, settings.shards) == (3, 4)


def test_server_0_alone_resumes_training(tmp_path: Path) -> None:
    settings, run_dir = resumed(TrainSettings(resume=str(begun(tmp_path, workers=1, shards=2))))
    specs = plan(settings, str(run_dir), resume=True)
    assert [spec.name for spec in specs if "--resume" in spec.args] == ["ps-0"]
    assert not [arg for spec in specs for arg in spec.args if arg.startswith("--resume=")]


def test_workers_begin_with_the_same_file_of_weights_which_has_the_frozen_ones(tmp_path: Path) -> None:
    run, weights = begun(tmp_path), tmp_path / "first.keras"
    content = json.loads((run / "config.json").read_text())
    content["workers"] = [{"facts": {"weights": str(weights)}, "incarnations": [[0, 1]]}]
    (run / "config.json").write_text(json.dumps(content))
    assert resumed(TrainSettings(resume=str(run)))[0].weights is None  # the file was removed
    with zipfile.ZipFile(weights, "w") as file:  # the launcher checks that it is one
        file.writestr("config.json", "{}")
    assert resumed(TrainSettings(resume=str(run)))[0].weights == str(weights)


@pytest.mark.parametrize("name, value", [("optimizer", "adam"), ("seed", 9), ("batch_size", 64)])
def test_settings_that_checkpoints_depend_on_cannot_change(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(CannotResume, match=f"cannot resume: --{name.replace('_', '-')} {value} differs from the run's"):
        resumed(TrainSettings(resume=str(begun(tmp_path)), **{name: value}))


def test_a_run_that_has_ended_is_not_resumed_except_for_more_epochs(tmp_path: Path) -> None:
    run = begun(tmp_path, epochs=3)
    (run / "summary.json").write_text(json.dumps({"status": "ended", "epochs": 3}))
    with pytest.raises(CannotResume, match="has not ended"):
        resumed(TrainSettings(resume=str(run)))
    assert resumed(TrainSettings(resume=str(run), epochs=5))[0].epochs == 5
    (run / "summary.json").write_text(json.dumps({"status": "interrupted", "epochs": 3}))
    assert resumed(TrainSettings(resume=str(run)))[0].epochs == 3


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"settings": 3}', '{"settings": {"epochs": -1}}'])
def test_a_path_that_is_not_a_run_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CannotResume, match="config.json"):
        resumed(TrainSettings(resume=str(tmp_path)))


def test_an_interrupted_training_reaches_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    """Ctrl-C in the first epoch, then the rest on other shards: weights, Adam's slots, step and rate, bit by bit."""
    flags = ["--epochs=2", "--workers=1", "--xla=off", "--optimizer=adam", "--learning-rate=0.002"]
    flags += ["--schedule=cosine:3564", "--warm-up=500"]
    whole = train(tmp_path / "whole", *flags)
    first = start(tmp_path / "first", *flags)
    latest = tmp_path / "first" / "latest"
    try:
        wait_until(lambda: checkpointed(latest, 50), "some of the first epoch is kept", 120.0)
        first.child.send_signal(signal.SIGINT)
        assert first.wait() == 0
    finally:
        first.kill()
    run = latest.resolve()
    before = json.loads((run / "summary.json").read_text())
    assert before["status"] == "interrupted" and 50 <= before["updates"] < 3564
    train(tmp_path / "second", f"--resume={run}", "--shards=2", "--xla=off")
    after = json.loads((run / "summary.json").read_text())
    assert (after["status"], after["updates"], after["samples"]) == ("ended", 3564, 2 * 57_000)
    trace = np.load(run / "trace.npy")
    assert trace["version"].tolist() == list(range(1, 3565))
    expected, found = (newest(path / "checkpoints")[0] for path in (whole, run))
    assert expected is not None and found is not None
    assert set(found.vectors) == {"trained", "slot.momentum", "slot.velocity"}
    for name, vector in expected.vectors.items():
        np.testing.assert_array_equal(found.vectors[name].view(np.uint32), vector.view(np.uint32), name)
    np.testing.assert_array_equal(trace["learning_rate"], np.load(whole / "trace.npy")["learning_rate"])
    assert after["test_accuracy"] == json.loads((whole / "summary.json").read_text())["test_accuracy"] > 0.9


def start(runs: Path, *flags: str) -> Process:
    runs.mkdir()
    return Process(runs / "launcher.log", "-m", "downpour.deploy.cli", "train", f"--runs-dir={runs}", *flags)


def train(runs: Path, *flags: str) -> Path:
    """`downpour train` to its end; returns the run directory, where it is a new one."""
    launcher = start(runs, *flags)
    try:
        assert launcher.wait(200.0) == 0, launcher.errors
    finally:
        launcher.kill()
    return (runs / "latest").resolve()
