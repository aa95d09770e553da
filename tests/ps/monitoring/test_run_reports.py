"""A run states when it was started and by which command."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from downpour.protos.system.command import VARIABLE, command_of_process, record_command
from downpour.ps.monitoring.run_reports import begun


def test_the_start_of_a_run_is_that_of_its_first_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "downpour train --epochs 2")
    file = tmp_path / "config.json"
    first = begun(file)
    age = datetime.now(UTC) - datetime.fromisoformat(first["started"])
    assert -2 < age.total_seconds() < 600 and first["command"] == "downpour train --epochs 2"
    file.write_text(json.dumps({"settings": {}, "started": "2026-01-01T00:00:00+00:00", "command": "another"}))
    assert begun(file) == {"started": "2026-01-01T00:00:00+00:00", "command": "downpour train --epochs 2"}
    for damaged in ("", "[]", '{"started": 3}'):
        file.write_text(damaged)
        assert datetime.fromisoformat(begun(file)["started"])


def test_the_command_of_a_process_is_its_command_line_unless_one_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert command_of_process().startswith("python ")
    record_command(["downpour", "run", "my script.py"])
    assert command_of_process() == "downpour run 'my script.py'"
