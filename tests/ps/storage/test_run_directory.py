"""The run directory on file systems that lack locks or links, and with what does not belong there."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from downpour.ps.storage.run_directory import RunDirectory, UnusableDirectory


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


def test_a_lock_that_is_a_folder_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UnusableDirectory, match=r"\.lock: Is a directory\. Remove"):
        RunDirectory(tmp_path).lock()
