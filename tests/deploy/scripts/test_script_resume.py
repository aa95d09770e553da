"""What `downpour run --resume` refuses before a process starts, and whose settings it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from downpour.deploy.launch.resume import CannotResume
from downpour.deploy.scripts.script_resume import resumed_script
from downpour.deploy.scripts.script_settings import RunSettings


def run_of(folder: Path, **saved: Any) -> str:
    """Write the settings of an earlier run, and return its directory."""
    (folder / "config.json").write_text(json.dumps({"settings": {"script": "script.py", **saved}}))
    return str(folder)


def test_settings_of_the_command_line_take_precedence_over_those_of_the_run(tmp_path: Path) -> None:
    run = run_of(tmp_path, workers=3, shards=2, mode="bsp")
    settings, run_dir = resumed_script(RunSettings(script="script.py", resume=run, workers=4))
    assert (settings.workers, settings.shards, settings.mode, run_dir) == (4, 2, "bsp", tmp_path.resolve())


@pytest.mark.parametrize("mode", ["localsgd:4", "easgd:0.1,4"])
def test_slots_of_workers_cannot_be_resumed(tmp_path: Path, mode: str) -> None:
    with pytest.raises(CannotResume, match=f"Received: --mode {mode}, with which each worker has slots of its own"):
        resumed_script(RunSettings(script="script.py", resume=run_of(tmp_path, mode=mode)))


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ({"script": ""}, "must name a run of a script"),
        ({"seed": 3}, "--seed 4 differs from the run's 3"),
        ({"mode": "bps"}, "must contain valid settings of a run"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, saved: dict[str, Any], words: str) -> None:
    with pytest.raises(CannotResume, match=words):
        resumed_script(RunSettings(script="script.py", resume=run_of(tmp_path, **saved), seed=4))


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"settings": 3}', "\udcff", "[" * 100_000])
def test_a_damaged_configuration_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CannotResume, match="--resume must name a run directory with a config.json"):
        resumed_script(RunSettings(script="script.py", resume=str(tmp_path)))
