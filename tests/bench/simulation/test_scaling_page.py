"""The commands and the tables of docs/scaling.md that are in virtual time, and the invariants of the queue."""

from __future__ import annotations

import re
import shlex
from functools import cache
from typing import Any

import pytest

from downpour.bench.simulation.simulate import SimulateSettings, simulate
from downpour.bench.speed.speedup import closed_queue
from downpour.protos.settings import parse
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("clean_environment")

PAGE = (ROOT / "docs" / "scaling.md").read_text()
THINK_S = 0.02
COMMANDS = re.findall(r"(?:^ {4}|`)downpour simulate ([^\n`]+)", PAGE, re.M)


@cache
def run(command: str) -> dict[str, Any]:
    return simulate(parse(SimulateSettings, shlex.split(command), "downpour simulate"))


def table(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without the line of dashes."""
    lines = re.findall(r"^\|(.*)\|$", PAGE.split(f"\n## {heading}\n")[1].split("\n\n#")[0], re.M)
    return [[cell.strip() for cell in line.split("|")] for line in lines if "---" not in line]


def check_invariants(found: dict[str, Any], workers: int, service_s: float) -> None:
    """Check the server's rate, and that every update makes the other P − 1 gradients one version older."""
    assert found["throughput"] <= 1 / service_s * (1 + 1e-9), "a server completes no more than its rate"
    ages = found["staleness"]["mean"] + found["in_flight_age"] / found["accepted"]
    assert ages == pytest.approx(workers - 1)


@pytest.mark.parametrize("workers", [1, 8, 100])
@pytest.mark.parametrize("service_s", [0.0006, 0.00254])
def test_the_queue_has_its_invariants(workers: int, service_s: float) -> None:
    found = run(f"--workers {workers} --service exp:50 --server-service const:{service_s} --updates 3000")
    check_invariants(found, workers, service_s)
    assert found["throughput"] <= workers / THINK_S * 1.2
    if workers > 2 * (1 + THINK_S / service_s):  # the queue is never empty
        assert found["throughput"] == pytest.approx(1 / service_s, rel=0.03)
    assert found["staleness"]["mean"] == pytest.approx(workers - 1, rel=0.05, abs=0.1)


def test_a_thousand_workers_saturate_a_server() -> None:
    (command,) = [each for each in COMMANDS if "0.0006 --updates" in each]
    assert command == "--workers 1000 --service exp:50 --server-service const:0.0006 --updates 20000"
    found = run(command)
    check_invariants(found, 1000, 0.0006)
    assert found["throughput"] == pytest.approx(1 / 0.0006, rel=1e-3)
    assert found["staleness"]["mean"] == pytest.approx(999, rel=0.05)


def test_the_number_of_workers_at_which_a_server_is_saturated() -> None:
    head, *rows = table("Workers")
    services_s = [float(re.findall(r"[\d.]+", cell)[0]) * 1e-3 for cell in head[1:]]
    (knees,) = [row[1:] for row in rows if row[0] == "P*"]
    assert [float(knee) for knee in knees] == [
        pytest.approx(1 + THINK_S / service_s, rel=0.02) for service_s in services_s
    ]


def test_the_prediction_of_the_queue_is_the_same_in_closed_form() -> None:
    """Mean-value analysis assumes exponential service times, for which a push waits longer than for constant ones."""
    for workers, service_s in ((4, 0.0006), (16, 0.0006), (100, 0.0006)):
        found = run(f"--workers {workers} --service exp:50 --server-service const:{service_s} --updates 3000")
        assert found["throughput"] == pytest.approx(closed_queue(workers, THINK_S, service_s), rel=0.08)


@pytest.mark.slow
def test_the_table_of_workers_is_what_the_simulation_gives() -> None:
    head, *rows = table("Workers")
    for row in rows:
        if row[0] == "P*":
            continue
        for cell, column in zip(row[1:], head[1:], strict=True):
            service_s = float(re.findall(r"[\d.]+", column)[0]) * 1e-3
            workers = int(row[0].replace(",", ""))
            found = run(f"--workers {workers} --service exp:50 --server-service const:{service_s:g} --updates 20000")
            check_invariants(found, workers, service_s)
            rate, wait_ms = (float(number) for number in re.findall(r"\d+", cell.replace(",", "")))
            assert rate == pytest.approx(found["throughput"], rel=0.02), (row[0], column)
            assert wait_ms == pytest.approx(1e3 * found["mean_queue_wait_s"], rel=0.02, abs=0.6), (row[0], column)


@pytest.mark.slow
def test_the_table_of_modes_is_what_its_commands_give() -> None:
    _, *rows = table("Synchronous modes")
    for _, rate, staleness, command in rows:
        found = run(command.strip("`").removeprefix("downpour simulate "))
        assert float(rate.replace(",", "")) == pytest.approx(found["throughput"], rel=0.02), command
        assert float(staleness) == pytest.approx(found["staleness"]["mean"], rel=0.02, abs=0.6), command


@pytest.mark.slow
def test_the_rates_in_the_text_are_those_of_its_commands() -> None:
    for flags, rate in (("const:0.00015 --updates", 6667), ("--push-every 20", 1634)):
        (command,) = [each for each in COMMANDS if flags in each]
        assert run(command)["throughput"] == pytest.approx(rate, rel=0.01) and f"{rate:,}" in PAGE
