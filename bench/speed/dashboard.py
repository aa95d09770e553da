"""`downpour bench dashboard`: measures what a viewer of the dashboard costs a job, and how fast the page is.

One job of `downpour train` runs with its dashboard while a viewer, which reads the events as an open page does, comes
and goes in turns of equal length. Each turn with a viewer is compared with the mean of the turns before and after it,
so that slow changes of the machine's speed cancel; the result is the median of these differences with its quartiles.
The processor time of the server and of the dashboard is measured as well, which varies less. As workers need all
processors, what a viewer adds to it is what they lose.

With Chromium and Selenium (`make browser-test` installs them), the page itself is measured: frames per second for 64
workers that make 3,000 pushes per second, live and in a replay, its memory, moves to random versions of a run of 20,000
pushes, and the size of its files and of a report.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import grpc
from pydantic import Field, field_validator

from downpour.bench import report
from downpour.bench.machine import cores, load
from downpour.bench.module_process import module_command, module_environment
from downpour.bench.speed import dashboard_page
from downpour.bench.speed.many_workers import cpu_s, memory
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import open_channel
from downpour.protos.parameter_server_pb2_grpc import CoordinatorStub
from downpour.protos.settings import Settings, parse

START_S = 120.0
PARTS = ("job", "page")
MANY_EPOCHS = 10_000  # the job is ended when everything is measured


class DashboardBenchSettings(Settings):
    """Measure the cost of a viewer, and the page."""

    workers: int = Field(2, ge=1, description="Number of workers of the job.")
    turns: int = Field(20, ge=2, description="Number of turns with a viewer.")
    turn_s: float = Field(3.0, gt=0, description="Duration of a turn in seconds.")
    page_s: float = Field(10.0, gt=0, description="Duration of each measurement of frames, in seconds.")
    only: str = Field("job,page", description="Parts to measure, separated by commas: job, page.")
    out: str | None = Field(None, description="Folder for results.json and report.md.")

    @field_validator("only")
    @classmethod
    def _known(cls, value: str) -> str:
        if not set(re.split(r",\s*", value)) <= set(PARTS):
            raise ValueError(f"must be one or more of {', '.join(PARTS)}, separated by commas")
        return value


def viewer_cost(settings: DashboardBenchSettings) -> dict[str, Any]:
    """Return the relative loss of throughput with a viewer, and the processor time of the dashboard's process."""
    with _job(settings.workers) as (address, server), _dashboard(address) as (page, pid):
        with open_channel(address) as channel:
            stub = CoordinatorStub(channel)
            _wait_for_training(stub)
            spent: dict[bool, list[float]] = {False: [], True: []}  # CPU time of both processes per second
            rates, held = [_rate(stub, settings.turn_s)], list[int]()
            for turn in range(2 * settings.turns):
                watched = turn % 2 == 0
                before, begin = cpu_s(pid) + cpu_s(server), time.perf_counter()
                with _viewer(page) if watched else nullcontext():
                    rates.append(_rate(stub, settings.turn_s))
                    used = cpu_s(pid) + cpu_s(server) - before
                spent[watched].append(used / (time.perf_counter() - begin) / rates[-1])
                held.append(memory(pid)[0])
    lost = [1 - 2 * rates[i] / (rates[i - 1] + rates[i + 1]) for i in range(1, len(rates), 2)]
    low, _, high = statistics.quantiles(lost, n=4)
    added_s = statistics.mean(spent[True]) - statistics.mean(spent[False])  # per update
    return {
        "pushes_per_s": statistics.median(rates),
        "dashboard_bytes": [held[0], held[-1]],
        "lost": statistics.median(lost),
        "quartiles": [low, high],
        "standard_error": statistics.stdev(lost) / len(lost) ** 0.5,
        "cpu_s_per_update": {str(key): statistics.median(each) for key, each in spent.items()},
        "cpu_share": statistics.median(rates) * added_s / cores(),
    }


@contextmanager
def _job(workers: int) -> Iterator[tuple[str, int]]:
    """Run a job of `downpour train` within the block; return the address and the process id of its server."""
    with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder:
        flags = [f"--workers={workers}", f"--epochs={MANY_EPOCHS}", f"--runs-dir={folder}", "--learning-rate=0.001"]
        command = module_command("downpour", "train", *flags)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=module_environment()
        ) as launcher:
            try:
                yield _coordinator(Path(folder)), _server(folder)
            finally:
                launcher.terminate()
                with suppress(subprocess.TimeoutExpired):
                    launcher.communicate(timeout=30)
                launcher.kill()


def _coordinator(folder: Path) -> str:
    """Return the address that the server has written to its run directory, once it has."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        for path in folder.glob("*/address"):
            if address := path.read_text().strip():
                return address
        time.sleep(0.1)
    raise RuntimeError(f"the server must announce its address within {START_S:g} s")


def _server(folder: str) -> int:
    """Return the process id of the server of the job whose runs are in a folder."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = path.read_bytes()
            if b"downpour.ps\0" in command and folder.encode() in command:
                return int(path.parent.name)
    raise RuntimeError(f"a server must run whose run directory is in {folder}")


@contextmanager
def _dashboard(address: str) -> Iterator[tuple[str, int]]:
    """Serve the dashboard of a job within the block; return the address of its page and its process id."""
    command = module_command("downpour.deploy.dashboard", address)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=module_environment()) as process:
        try:
            assert process.stdout is not None
            page = json.loads(process.stdout.readline())["address"]
            yield page.partition("#")[0], process.pid
        finally:
            process.kill()


@contextmanager
def _viewer(page: str) -> Iterator[None]:
    """Read the events of a page within the block, and discard them."""
    with urllib.request.urlopen(f"{page}events") as stream:

        def read() -> None:
            with suppress(OSError, ValueError, AttributeError):  # the block has closed the stream
                while stream.read1(1 << 16):
                    pass

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        yield


def _wait_for_training(stub: CoordinatorStub) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with suppress(grpc.RpcError):
            if stub.Status(pb.StatusRequest(), timeout=5).version > 100:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the job must train within {START_S:g} s")


def _rate(stub: CoordinatorStub, seconds: float) -> float:
    """Return the updates per second during the next seconds."""
    first, begin = stub.Status(pb.StatusRequest(), timeout=10).version, time.perf_counter()
    time.sleep(seconds)
    last, end = stub.Status(pb.StatusRequest(), timeout=10).version, time.perf_counter()
    return float(last - first) / (end - begin)


def table(results: dict[str, Any]) -> str:
    """Return the report in Markdown."""
    lines = []
    if job := results.get("job"):
        (low, high), (early, late) = job["quartiles"], job["dashboard_bytes"]
        lines += [
            ["throughput that a viewer costs", f"{job['lost']:.2%} (quartiles {low:.2%} to {high:.2%}, standard error "
             f"{job['standard_error']:.2%})", "1 %"],
            ["memory of the dashboard, after the first turn and the last", f"{early / 1e6:.0f} MB, {late / 1e6:.0f} MB",
             "bounded"],
            ["updates per second of the job", f"{job['pushes_per_s']:,.0f}", ""],
            ["processor time that a viewer adds, of all processors", f"{job['cpu_share']:.2%}", "1 %"],
        ]  # fmt: skip
    for name, (measured, limit) in results.get("page", {}).items():
        lines.append([name, measured, limit])
    return f"{report.head(results, 'The dashboard')}\n\n{report.rows(['what', 'measured', 'limit'], lines)}"


def main(argv: Sequence[str]) -> int:
    """Measure, print the table, and write the report if requested."""
    settings = parse(DashboardBenchSettings, list(argv), "downpour bench dashboard")
    results, parts = report.results_header("dashboard", list(argv)), re.split(r",\s*", settings.only)
    if "page" in parts and (reason := dashboard_page.missing()):
        print(f"the page is not measured: {reason}", file=sys.stderr)
        parts.remove("page")
    if "page" in parts:
        results["page"] = dashboard_page.measure(settings.page_s)
    if "job" in parts:
        results["job"] = viewer_cost(settings)
    results["load_at_end"] = load()
    text = table(results)
    print(text)
    if settings.out:
        report.write(Path(settings.out), results, text, {}, __doc__ or "")
    return 0
