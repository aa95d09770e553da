"""`downpour train --resume`: what holds of an earlier run, and that going on with it loses nothing."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.config import TrainSettings
from deploy.plan import plan
from deploy.resume import CannotResume, resumed
from ps.config import ServerSettings
from ps.run import configuration
from tests.cluster import Process, wait_until
from tests.restarts import checkpointed

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


def test_the_first_server_goes_on_and_nothing_else_is_told_to(tmp_path: Path) -> None:
    settings, run_dir = resumed(TrainSettings(resume=str(begun(tmp_path, workers=1, shards=2))))
    specs = plan(settings, str(run_dir), resume=True)
    assert [spec.name for spec in specs if "--resume" in spec.args] == ["ps-0"]
    assert not [arg for spec in specs for arg in spec.args if arg.startswith("--resume=")]


@pytest.mark.parametrize("name, value", [("optimizer", "adam"), ("seed", 9), ("batch_size", 64)])
def test_what_checkpoints_depend_on_cannot_change(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(CannotResume, match=f"--{name.replace('_', '-')} it was begun with"):
        resumed(TrainSettings(resume=str(begun(tmp_path)), **{name: value}))


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"settings": 3}', '{"settings": {"epochs": -1}}'])
def test_what_is_no_run_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CannotResume, match="config.json"):
        resumed(TrainSettings(resume=str(tmp_path)))


@pytest.mark.slow
def test_an_interrupted_training_is_gone_on_with_to_its_end(tmp_path: Path) -> None:
    """Ctrl-C in the first epoch, then the rest on other shards: every batch counts once, and it has learned."""
    flags = ["--epochs=2", "--workers=1", "--xla=off", f"--runs-dir={tmp_path / 'runs'}"]
    first = Process(tmp_path / "first.log", "-m", "deploy.cli", "train", *flags)
    try:
        latest = tmp_path / "runs" / "latest"
        wait_until(lambda: checkpointed(latest, 50), "some of the first epoch is kept", 120.0)
        first.child.send_signal(signal.SIGINT)
        assert first.wait() == 0
    finally:
        first.kill()
    run = latest.resolve()
    before = json.loads((run / "summary.json").read_text())
    assert before["status"] == "interrupted" and 50 <= before["updates"] < 3564
    second = Process(tmp_path / "second.log", "-m", "deploy.cli", "train", f"--resume={run}", "--shards=2", "--xla=off")
    try:
        assert second.wait(240.0) == 0, second.errors
    finally:
        second.kill()
    after = json.loads((run / "summary.json").read_text())
    assert (after["status"], after["updates"], after["samples"]) == ("ended", 3564, 2 * 57_000)
    assert after["test_accuracy"] > 0.9
    trace = np.load(run / "trace.npy")
    assert trace["version"].tolist() == list(range(1, 3565))
