"""A place in a script that reads the clock receives the same time on all workers, outside of `fit`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

SCRIPT = """
import datetime, json, logging, sys, threading, time
from datetime import datetime as moment
real = time.time
from downpour.worker.fit.process.script_clock import MOST_READINGS, ScriptClock

clock = ScriptClock(sys.argv[1])
clock.install()
from time import strftime, time as seconds  # as a script does, which runs afterwards

def read():
    return {
        "time": time.time(), "seconds": seconds(), "ns": time.time_ns(),
        "now": moment.now().isoformat(), "utcnow": moment.utcnow().isoformat(), "today": str(datetime.date.today()),
        "aware": datetime.datetime.now(tz=datetime.timezone.utc).isoformat(),
        "strftime": strftime("%Y%m%d-%H%M%S"), "localtime": list(time.localtime()), "ctime": time.ctime(),
    }

before, again = read(), read()
with clock.of_fit(1):
    within = [time.time(), real()]
other = []
thread = threading.Thread(target=lambda: other.extend([time.time(), real()]))
thread.start()
thread.join()
many = [time.time() for _ in range(MOST_READINGS + 1)]
record = logging.LogRecord("name", 20, "path", 1, "text", (), None).created
late = [many[-1], record]
given = [time.strftime("%Y", time.gmtime(0)), str(moment.fromtimestamp(0, datetime.UTC)), type(moment.now()) is moment]
print(json.dumps({
    "before": before, "again": again, "after": read(), "many": many[:-1], "given": given,
    "own": [abs(a - b) < 60 for a, b in (within, other, (late[0], real()), (late[1], real()))],
    "times": [*within, *other, *late],
}))
"""


def of_worker(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("shared") / "clock"
    return [of_worker(folder) for _ in range(2)]


@pytest.mark.parametrize("part", ["before", "again", "after", "many", "given"])
def test_the_script_reads_one_time_on_all_workers(workers: list[dict[str, Any]], part: str) -> None:
    assert workers[0][part] == workers[1][part]


def test_each_worker_reads_its_own_clock_within_fit_in_threads_in_libraries_and_in_long_loops(
    workers: list[dict[str, Any]],
) -> None:
    assert workers[0]["own"] == workers[1]["own"] == [True] * 4
    assert all(first < second for first, second in zip(workers[0]["times"], workers[1]["times"], strict=True))


def test_time_does_not_go_back(workers: list[dict[str, Any]]) -> None:
    for seen in workers:
        times = [seen["before"]["time"], seen["again"]["time"], *seen["many"], seen["after"]["time"]]
        assert times == sorted(times)
    assert workers[0]["given"] == ["1970", "1970-01-01 00:00:00+00:00", True]
