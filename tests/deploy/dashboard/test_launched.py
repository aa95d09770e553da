"""`--dashboard` adds one process to the plan, on which the job does not depend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from downpour.deploy.config import TrainSettings
from downpour.deploy.launch.launcher import Launcher
from downpour.deploy.launch.plan import plan
from downpour.deploy.scripts.script_launcher import script_plan
from downpour.deploy.scripts.script_settings import RunSettings


@pytest.mark.parametrize("shards", [1, 3])
def test_the_plan_has_a_dashboard_only_on_request(shards: int) -> None:
    without = plan(TrainSettings(shards=shards, workers=2), "run")
    with_one = plan(TrainSettings(shards=shards, workers=2, dashboard=True), "run")
    (dashboard,) = [spec for spec in with_one if spec.role == "dashboard"]
    assert [spec for spec in with_one if spec is not dashboard] == without
    command = dashboard.command("python", {"ps-0": "127.0.0.1:5"})
    assert command == ["python", "-P", "-m", "downpour.deploy.dashboard", "127.0.0.1:5", "--until-over"]
    assert dashboard.restarts == 0


def test_a_script_has_a_dashboard_on_request() -> None:
    roles = [spec.role for spec in script_plan(RunSettings(workers=1, dashboard=True), "run", ["script.py"])]
    assert roles == ["ps", "dashboard", "worker"]
    assert "dashboard" not in [spec.role for spec in script_plan(RunSettings(workers=1), "run", ["script.py"])]


class FakeProcess:
    """A dashboard's process as the launcher sees it."""

    def __init__(self, address: str | None, code: int | None) -> None:
        self.address, self.code = address, code

    def announcement(self) -> dict[str, Any] | None:
        return {"address": self.address} if self.address else None

    def reason(self) -> str:
        return "downpour dashboard: aiohttp must be installed"


class Notes:
    """A screen that keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(
    ("process", "notes"),
    [
        (None, []),
        (FakeProcess(None, None), []),
        (FakeProcess("http://127.0.0.1:1/", None), ["the dashboard is at http://127.0.0.1:1/"]),
        (FakeProcess(None, 2), ["there is no dashboard: aiohttp must be installed"]),
    ],
)
def test_the_address_of_the_dashboard_or_its_error_is_shown_once(
    tmp_path: Path, process: Any, notes: list[str]
) -> None:
    screen: Any = Notes()
    launcher = Launcher([], tmp_path, screen)
    if process is not None:
        launcher._processes["dashboard"] = process
    for _ in range(3):
        launcher._announce_dashboard()
    assert screen.notes == notes
    launcher._parent_pipe.close()
