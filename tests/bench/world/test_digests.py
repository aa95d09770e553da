"""A seed gives the same run on every machine: the digests of some jobs are those that another machine has recorded."""

from __future__ import annotations

import json
import platform

import pytest

from downpour.ps.monitoring import summary
from tests.support.digests import FILE, JOBS, PYTHON, RECORD, measured

RECORDED = json.loads(FILE.read_text())


def test_every_job_has_a_recorded_digest() -> None:
    assert list(RECORDED["digests"]) == list(JOBS)


@pytest.mark.skipif(
    RECORDED["python"] != PYTHON, reason="asyncio's callbacks, which are events, differ between versions of Python"
)
def test_the_digests_are_those_that_another_machine_has_recorded() -> None:
    found = measured()
    assert found == RECORDED["digests"], (
        "the digests of simulated jobs must be those in tests/bench/world/digests.json. If the simulator, or the "
        f"program that it runs, has changed since, record them anew with `{RECORD}`, and commit the file. If nothing "
        "has changed, something that depends on the machine has entered a simulated job."
    )


def test_versions_and_commands_which_differ_between_machines_do_not_enter_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The size of `config.json`, which contains them, decided how many random numbers a power failure drew."""
    before = measured()
    monkeypatch.setenv("DOWNPOUR_COMMAND", "downpour " + "x" * 5_000)
    monkeypatch.setattr(platform, "release", lambda: "9" * 100)
    monkeypatch.setattr(summary, "_package_versions", lambda: {"numpy": "1" * 2_000})
    assert measured() == before
