"""The run directory on file systems that lack locks or links, and with what does not belong there."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from downpour.protos.system import disk
from downpour.ps.config import ServerSettings
from downpour.ps.storage.checkpoint_file import path_of
from downpour.ps.storage.run_directory import RunDirectory, UnusableDirectory, run_directory


def refuse(*arguments: Any, **named: Any) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_file_system_without_locks_is_used_and_a_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse)
    run = RunDirectory(tmp_path / "run")
    assert run.lock() and "cannot be locked" in run.notes[0]


def test_a_file_system_without_links_has_no_latest_and_a_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "symlink", refuse)
    run = RunDirectory(tmp_path / "run")
    run.publish()
    assert "no link `latest`" in run.notes[0] and [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_a_folder_named_latest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    run = RunDirectory(tmp_path / "run")
    run.publish()
    assert run.notes and sorted(entry.name for entry in tmp_path.iterdir()) == ["latest", "run"]


@pytest.mark.parametrize("place", ["a file", "within a file"])
@pytest.mark.parametrize("flag", ["--run-dir", "--runs-dir"])
def test_a_folder_that_cannot_be_created_is_told_in_a_sentence(tmp_path: Path, flag: str, place: str) -> None:
    """A folder that is read-only has the same kind of error; the user of these tests may be root."""
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" if place == "a file" else tmp_path / "file" / "runs"
    with pytest.raises(UnusableDirectory, match=rf"^{flag} must be a folder in which files can be created; .*file"):
        if flag == "--run-dir":
            RunDirectory(path)
        else:
            run_directory(ServerSettings(runs_dir=str(path)))


def test_a_lock_that_is_a_folder_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UnusableDirectory, match=r"\.lock: Is a directory\. Remove"):
        RunDirectory(tmp_path).lock()


@pytest.mark.parametrize("links", [True, False])
def test_the_end_of_a_call_of_fit_that_is_completed_again_replaces_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refuse)
        monkeypatch.setattr(disk, "unnamed_file", lambda folder: None)
    run = RunDirectory(tmp_path / "run")
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        path_of(run.checkpoints, number).write_text(f"weights {number}")
        for _ in range(2):
            run.keep_completed(number, 1)
        assert (run.path / "fits" / "fit-000001.safetensors").read_text() == f"weights {number}"
    assert [entry.name for entry in (run.path / "fits").iterdir()] == ["fit-000001.safetensors"]
