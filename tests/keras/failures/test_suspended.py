"""Scripts whose server or worker is suspended or hangs: `fit` continues, and each sample is used once."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.cluster import wait_until
from tests.support.scripts import command, environment, server_of

pytestmark = pytest.mark.slow
EPOCHS, SAMPLES = 2, 800


@contextmanager
def running(tmp_path: Path, *words: str, env: dict[str, str] | None = None, **flags: Any) -> Iterator[Any]:
    """Run two_fits.py with two workers, and kill it at the end of the context."""
    arguments = (str(tmp_path), str(EPOCHS), str(SAMPLES), "0.01", *words)
    begun = subprocess.Popen(
        command(tmp_path, "two_fits.py", *arguments, workers=2, **flags), env={**environment(), **(env or {})},
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield begun
    finally:
        begun.kill()
        begun.communicate()


def await_line(begun: Any, beginning: str) -> None:
    assert any(line.startswith(beginning) for line in begun.stdout), beginning


def worker_of(begun: Any, rank: int) -> psutil.Process:
    return next(each for each in psutil.Process(begun.pid).children() if f"--worker={rank}" in each.cmdline())


def check_reports(tmp_path: Path, ranks: tuple[int, int] = (0, 1)) -> None:
    """Check that both workers have used every sample of every epoch once, and have the same history."""
    first, other = (json.loads((tmp_path / f"report-{rank}.json").read_text()) for rank in ranks)
    for call, (mine, its) in enumerate(zip(first, other, strict=True)):
        assert mine["uses"] == its["uses"] == [EPOCHS * (call + 1)] * SAMPLES
        assert mine["history"] == its["history"]
        for report in (mine, its):
            assert report["begun"] == report["ended"] == report["epochs"] == list(range(EPOCHS))
            assert report["iterations"] == EPOCHS * (call + 1) * SAMPLES // 8


@pytest.mark.parametrize(("shards", "victim"), [(1, 0), (2, 1)])
def test_a_server_that_was_suspended_for_longer_than_a_call_may_last(tmp_path: Path, shards: int, victim: int) -> None:
    with running(tmp_path, env={"DOWNPOUR_CALL_TIMEOUT_S": "2"}, shards=shards, checkpoint_every="0.2s") as begun:
        await_line(begun, "CALL 0 EPOCH 1 BATCH")
        server = server_of(begun, victim)
        server.suspend()
        log = next((tmp_path / "runs").glob("*-two_fits/logs")) / "worker-1.log"
        words = ("does not answer", "registering again")
        wait_until(lambda: any(word in log.read_text() for word in words), "a worker notices that the server is away")
        server.resume()
        _, errors = begun.communicate(timeout=240)
        assert begun.returncode == 0, errors[-3000:]
    check_reports(tmp_path)


def test_a_server_that_stays_suspended_ends_the_script_with_a_message(tmp_path: Path) -> None:
    with running(tmp_path, env={"DOWNPOUR_CALL_TIMEOUT_S": "2"}, reconnect_s="3") as begun:
        await_line(begun, "CALL 0 EPOCH 1 BATCH")
        children = psutil.Process(begun.pid).children()
        server_of(begun, 0).suspend()
        _, errors = begun.communicate(timeout=120)
        assert begun.returncode in (1, 3), errors[-3000:]
        assert "did not return within 3 s (its --reconnect-s)" in errors
    _, alive = psutil.wait_procs(children, timeout=30.0)
    assert alive == []


def test_a_worker_that_was_suspended_past_a_call_has_what_the_others_have(tmp_path: Path) -> None:
    with running(tmp_path, session_s=1) as begun:
        await_line(begun, "CALL 0 EPOCH 0 BATCH")
        worker = worker_of(begun, 1)
        worker.suspend()
        await_line(begun, "CALL 1 EPOCH 0 BATCH")
        worker.resume()
        _, errors = begun.communicate(timeout=240)
        assert begun.returncode == 0, errors[-3000:]
    check_reports(tmp_path)


def test_a_worker_that_hangs_loses_its_samples_to_the_others_and_may_come_back(tmp_path: Path) -> None:
    """Its heartbeats go on, so that only its steps show that it hangs."""
    with running(tmp_path, "hang", session_s=4) as begun:
        await_line(begun, "CALL 1 EPOCH 0 BATCH")
        worker_of(begun, 1).send_signal(signal.SIGUSR1)
        _, errors = begun.communicate(timeout=240)
        assert begun.returncode == 0, errors[-3000:]
        # On a machine that is busy, the heartbeats of a process may be late as well.
        assert "worker 1 sends heartbeats but has made no progress" in errors or "has sent no heartbeat" in errors
    check_reports(tmp_path)


def test_a_worker_that_stops_in_a_batch_for_ever_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """Its heartbeats go on: the others use its samples, and the job ends when the script of worker 0 has ended."""
    with running(tmp_path, "stop", session_s=4) as begun:
        await_line(begun, "CALL 0 EPOCH 0 BATCH")
        stopped = worker_of(begun, 1)
        _, errors = begun.communicate(timeout=300)
        assert begun.returncode == 0, errors[-3000:]
        assert "worker 1 sends heartbeats but has made no progress" in errors or "has sent no heartbeat" in errors
        assert "worker-1 did not end and is stopped" in errors
    check_reports(tmp_path, (0, 0))
    _, alive = psutil.wait_procs([stopped], timeout=60.0)
    assert alive == [] and not (tmp_path / "report-1.json").exists()
