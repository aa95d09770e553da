"""The page of a real job: each of its buttons acts, its values are those of the status, and the run can be replayed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import wait_until
from tests.support.paths import ROOT
from tests.support.processes.browser import Browser, browsing

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]
LONG_S = 240.0  # processes with TensorFlow start, on a machine that may be busy
STATUS = "document.querySelector('[data-fact=status]')?.dataset.value"
ANSWER = "document.getElementById('controls-status')"


def downpour(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "downpour", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG_S, check=False, cwd=ROOT)


@contextmanager
def job_with_dashboard(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `downpour train --dashboard`, and return its process and the address of its page."""
    flags = ["--workers=2", "--epochs=1000", "--record=on", "--learning-rate=0.1", f"--runs-dir={folder}/runs"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DOWNPOUR_")}
    log = folder / "output"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "downpour", "train", "--dashboard", *flags],
            stdout=output, stderr=output, cwd=ROOT, env=clean,
        )  # fmt: skip
    try:
        found = wait_until(
            lambda: re.search(r"http://127\.0\.0\.1:\d+/#secret=\S+", log.read_text()), "the address", LONG_S
        )
        yield child, found[0]
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        assert child.wait(LONG_S) == 0, log.read_text()[-3000:]


def press(browser: Browser, selector: str, answer: str) -> None:
    """Press a button and wait for its answer."""
    browser.run(f"{ANSWER}.textContent = ''; document.querySelector(arguments[0]).click()", selector)
    text = f"{ANSWER}.textContent"
    wait_until(lambda: browser.run(f"return {text}.startsWith('Done') || {text}.startsWith('Refused')"), answer, LONG_S)
    assert answer in browser.run(f"return {text}"), selector


def wait(browser: Browser, script: str, what: str) -> None:
    wait_until(lambda: browser.run(f"return {script}"), what, LONG_S)


def status_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(downpour("status", str(run), "--json").stdout)
    return found


def test_every_button_acts_and_the_run_repeats_bit_for_bit(tmp_path: Path) -> None:
    with browsing() as browser:
        with job_with_dashboard(tmp_path) as (job, address):
            browser.open(f"{address}&lang=en")
            wait(browser, f"{STATUS} === 'training'", "training")
            wait(browser, "document.querySelectorAll('#worker-controls button').length === 6", "the workers' buttons")
            for name, value in {"mode": "ssp:4", "lr": "0.05", "compensation": "inverse"}.items():
                browser.run(f"document.getElementById('set-{name}').value = '{value}'")
            press(browser, "#set", "ssp:4")
            press(browser, "[data-action=slow][data-number='0']", "slowed down")
            press(browser, "[data-action=stall][data-number='1']", "stopped")
            press(browser, "[data-action=kill][data-number='1']", "killed")
            joined = "document.getElementById('events').textContent.includes('Worker 1 joined again')"
            wait(browser, joined, "worker 1 is restarted")
            press(browser, "#add-worker", "started")
            wait(
                browser, "document.querySelector(`[data-worker='2'] [data-column=updates]`)?.textContent > '0'", "work"
            )
            press(browser, "#checkpoint", "checkpoint")
            press(browser, "#pause", "pauses")
            wait(browser, f"{STATUS} === 'paused'", "the pause")
            (run,) = (path for path in (tmp_path / "runs").iterdir() if not path.is_symlink())
            wait_until(lambda: status_of(run)["version"] == status_of(run)["version"], "no more pushes", LONG_S)
            shown = status_of(run)
            for fact in ("version", "samples", "dropped", "bytes_pushed"):
                value = f"document.querySelector('[data-fact={fact}]').dataset.value"
                wait(browser, f"{value} === '{shown[fact]}'", f"{fact} is {shown[fact]}")
            for worker in shown["workers"]:
                cell = f"[data-worker='{worker['worker']}'] [data-column=updates]"
                assert browser.shown(cell) == f"{worker['updates']:,}"
            assert {worker["worker"] for worker in shown["workers"]} == {0, 1, 2}
            press(browser, "#pause", "resumes")
            browser.run("window.confirm = () => true")
            press(browser, "#drain", "drains")
            assert job.wait(LONG_S) == 0
            wait(browser, f"['ended', 'finishing'].includes({STATUS})", "the end")
        assert browser.complaints() == []
        events = json.loads((run / "changes.json").read_text())["changes"]
        assert [change["after"]["mode"] for change in events if "mode" in change["after"]] == ["ssp:4"]
        replay = downpour("replay", str(run))
        assert replay.returncode == 0, replay.stdout + replay.stderr
        assert downpour("report", str(run)).returncode == 0
        browser.open((run / "report.html").as_uri())
        summary = json.loads((run / "summary.json").read_text())
        assert int(browser.fact("updates")) == summary["updates"]
        assert float(browser.fact("bytes_pushed")) == summary["bytes_pushed"]
        assert "Worker 1 joined again" in browser.shown("#events") and "ssp:4" in browser.shown("#events")
