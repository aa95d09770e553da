"""Damaged files, and folders where files are expected: a sentence that says what to do, and never a traceback."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from downpour.bench.replay.record import CannotReplay, read_run
from downpour.deploy.launch.resume import CannotResume, resumed
from downpour.deploy.launch.run_dir import read_summary
from downpour.deploy.trained import find
from downpour.ps.config import ServerSettings
from downpour.ps.monitoring.summary import configuration
from downpour.worker.catalog.npz import ARRAYS, DatasetError, read_npz
from tests.support.cluster import Process

DEEP = "[" * 100_000
CONTENTS = {"empty": b"", "deep": DEEP.encode(), "binary": bytes(range(256)), "null": b"null", "number": b"3"}


def put(path: Path, kind: str) -> None:
    path.mkdir() if kind == "a folder" else path.write_bytes(CONTENTS[kind])


def run_of(folder: Path) -> Path:
    content = configuration(ServerSettings(), {})
    content["data"] = {"checksum": "c" * 64}
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "summary.json").write_text(json.dumps({"status": "ended", "generation": 1}))
    return folder


@pytest.mark.parametrize("kind", [*CONTENTS, "a folder"])
@pytest.mark.parametrize("name", ["config.json", "summary.json", "initial.safetensors", "trace.npy", "calls.npy"])
def test_a_replay_of_damaged_files_says_what_is_wrong(tmp_path: Path, name: str, kind: str) -> None:
    run = run_of(tmp_path)
    (run / name).unlink(missing_ok=True)
    put(run / name, kind)
    with pytest.raises(CannotReplay):
        read_run(run)


@pytest.mark.parametrize("value", ["2", None, [], {}, 1e400, -1])
def test_a_replay_of_a_summary_with_odd_values_says_what_is_wrong(tmp_path: Path, value: object) -> None:
    run = run_of(tmp_path)
    (run / "summary.json").write_text(json.dumps({"generation": value, "partial_pushes": value}))
    with pytest.raises(CannotReplay):
        read_run(run)


@pytest.mark.parametrize("kind", [*CONTENTS, "a folder"])
def test_an_odd_summary_or_configuration_is_no_traceback(tmp_path: Path, kind: str) -> None:
    from downpour.deploy.config import TrainSettings

    put(tmp_path / "summary.json", kind)
    put(tmp_path / "config.json", kind)
    (tmp_path / "model.keras").touch()
    assert read_summary(tmp_path) is None and find(str(tmp_path)) == (tmp_path / "model.keras", {})
    with pytest.raises(CannotResume):
        resumed(TrainSettings(resume=str(tmp_path)))


@pytest.mark.parametrize("name", ARRAYS)
def test_an_entry_that_is_no_array_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as file:
        file.writestr(name, "text")
    with pytest.raises(DatasetError, match=name):
        read_npz(tmp_path / "data.npz")


@pytest.mark.parametrize("name", [".lock", "initial.safetensors", "calls.npy", "generation"])
def test_a_folder_in_the_place_of_a_file_of_the_run_is_told_in_sentences(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    (run / name / "inside").mkdir(parents=True)
    server = Process(tmp_path / "ps.log", "-m", "downpour.ps", f"--run-dir={run}")
    try:
        assert server.wait() == 3
        assert "Traceback" not in server.errors and name in server.errors and "--run-dir must" in server.errors
    finally:
        server.kill()
