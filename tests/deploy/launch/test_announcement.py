"""A launcher accepts an announcement only from the process that it has started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from downpour.deploy.launch.plan import ProcessSpec
from downpour.deploy.launch.processes import ParentPipe, Process, kill
from tests.support.cluster import wait_until

WAITING = "import signal\nsignal.pause()\n"
ANNOUNCING = """
import json, os, signal
print(json.dumps({"event": "listening", "address": "mine:1", "pid": os.getpid()}), flush=True)
signal.pause()
"""


@pytest.fixture
def pipe() -> Iterator[ParentPipe]:
    pipe = ParentPipe()
    yield pipe
    pipe.close()


def started(folder: Path, pipe: ParentPipe, code: str) -> Process:
    (folder / "announcing.py").write_text(code)
    spec = ProcessSpec("ps-0", "ps", 0, "announcing", (), {"PYTHONPATH": str(folder)})
    return Process(spec, {}, folder, pipe)


def foreign(log: Path) -> None:
    """Write the announcement of another launcher's server, as it shares the log of a run that both resume."""
    with log.open("a") as file:
        file.write(json.dumps({"event": "listening", "address": "other:2", "pid": 1}) + "\n")


def test_the_announcement_of_another_process_in_the_same_log_is_ignored(tmp_path: Path, pipe: ParentPipe) -> None:
    process = started(tmp_path, pipe, WAITING)
    try:
        foreign(process.log)
        assert process.lines() and process.announcement() is None
    finally:
        kill([process])


def test_its_own_announcement_is_found_beside_that_of_another(tmp_path: Path, pipe: ParentPipe) -> None:
    process = started(tmp_path, pipe, ANNOUNCING)
    try:
        foreign(process.log)
        found = wait_until(process.announcement, "it announces its address")
        assert (found["address"], found["pid"]) == ("mine:1", process.pid)
    finally:
        kill([process])


def test_a_log_that_cannot_be_opened_leaves_a_process_without_a_log(tmp_path: Path, pipe: ParentPipe) -> None:
    (tmp_path / "ps-0.log").mkdir()
    process = started(tmp_path, pipe, "")
    try:
        assert process.no_log == "Is a directory" and process.lines() == [] and process.announcement() is None
        assert process.reason()
    finally:
        kill([process])
