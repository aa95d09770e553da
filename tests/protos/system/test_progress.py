"""Long work says what it does: a bar on a terminal, and lines elsewhere."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading

import pytest

from downpour.protos.system import progress
from downpour.protos.system.progress import doing, tracked, waiting_for
from tests.support.paths import ROOT


def as_file(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Make standard error a file, which receives a line as often as possible."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "FIRST_S", 0.001)
    monkeypatch.setattr(progress, "EVERY_S", 0.001)
    return stream


def wait_for(text: str, stream: io.StringIO) -> None:
    """Wait until a stream contains a text."""
    seen = threading.Event()
    for _ in range(6000):
        if text in stream.getvalue():
            return
        seen.wait(0.01)
    raise AssertionError(f"{text!r} is not in {stream.getvalue()!r}")


def test_a_file_receives_lines_with_the_parts_that_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = as_file(monkeypatch)
    for number in tracked("abc", "letters"):
        wait_for(f"letters, {'abc'.index(number)} of 3 (", lines)
    with doing("repeat", 10) as part_done:
        part_done(7)
        wait_for("repeat, 7 of 10", lines)
        part_done()
        wait_for("repeat, 8 of 10", lines)
    with doing("wait"):
        wait_for("wait (", lines)
    with waiting_for("a server"):
        wait_for("waiting for a server (", lines)


def test_work_of_less_than_a_second_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(tracked([1, 2], "numbers")) == [1, 2]
    assert stream.getvalue() == ""


PROGRAM = """
from downpour.protos.system.progress import doing, tracked
with doing("outer work"):
    for each in tracked(range(3), "inner parts"):
        print("line", each)
    with doing("last", 5) as part_done:
        part_done(4)
        import time; time.sleep(1.2)
"""


def test_a_terminal_shows_nested_bars_and_keeps_the_output(tmp_path: str) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
    except OSError:  # the other side is closed
        pass
    finally:
        os.close(master)
    assert process.wait(60) == 0
    text = shown.decode()
    assert "outer work" in text and "4/5" in text and all(f"line {number}" in text for number in range(3))
