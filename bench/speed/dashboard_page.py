"""Measures the dashboard's page in Chromium: frames, memory, moves of the playhead, and sizes."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from downpour.deploy.dashboard import live
from downpour.deploy.dashboard.page_data import page_data
from downpour.deploy.dashboard.page_files import files, one_document
from downpour.deploy.dashboard.recorded_run import RecordedRun
from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.trace.call_log import DTYPE as CALL_DTYPE
from downpour.ps.trace.format import DTYPE

WORKERS, SHARDS, PUSHES_PER_S = 64, 2, 3000
LONG = 20_000  # pushes of the run in which the playhead is moved
REPLAYED_S = 60
BATCH, LEASE = 32, 3200
WARM_UP_S = 3.0
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,1000")
SEEKS = 40
COUNT_FRAMES = """
window.gaps = []; let last = performance.now();
const tick = (now) => { window.gaps.push(now - last); last = now; requestAnimationFrame(tick); };
requestAnimationFrame(tick);
"""
RECEIVE_EVENTS = "window.events = new EventSource('/events')"
SEEK = """
const slider = document.getElementById("slider"), began = performance.now();
slider.value = arguments[0];
slider.dispatchEvent(new Event("input", {bubbles: true}));
return performance.now() - began;
"""
Row = tuple[str, str]  # a measurement and its limit, as text


def missing() -> str:
    """Return which requirements of the measurements are missing; empty if none is."""
    lacks = [name for name in ("selenium", "aiohttp") if importlib.util.find_spec(name) is None]
    lacks += [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(lacks)} must be installed; `make browser-test` does that" if lacks else ""


def synthetic_trace(pushes: int, begin: int = 0, seed: int = 0) -> np.ndarray:
    """Return the records of pushes that `WORKERS` workers make in turns, `PUSHES_PER_S` together, from a number on."""
    random, number = np.random.default_rng((seed, begin)), begin + np.arange(pushes)
    trace = np.zeros(pushes, DTYPE)
    trace["time_s"] = (number + random.uniform(0, 0.9, pushes)) / PUSHES_PER_S
    trace["worker"], trace["seq"], trace["incarnation"] = number % WORKERS, number // WORKERS + 1, 1
    trace["version"] = number + 1
    trace["staleness"] = np.minimum(number, random.poisson(WORKERS - 1, pushes))
    trace["base_version"] = trace["version"] - 1 - trace["staleness"]
    trace["start"] = number * BATCH % (100 * LEASE)
    trace["stop"], trace["lease"] = trace["start"] + BATCH, 1 + number * BATCH // LEASE
    trace["samples"], trace["learning_rate"] = BATCH, 0.1 / np.maximum(1, trace["staleness"])
    trace["loss"] = 2.3 * np.exp(-number / 20_000) + random.normal(0, 0.05, pushes)
    trace["norm"], trace["compute_s"] = 1.0, 0.8 * WORKERS / PUSHES_PER_S
    return trace


def synthetic_run(pushes: int) -> RecordedRun:
    """Return a finished run of `synthetic_trace` on `SHARDS` shards."""
    trace = synthetic_trace(pushes)
    settings = {"model": "sigmoid100", "dataset": "mnist", "mode": "async", "optimizer": "sgd", "batch_size": BATCH,
                "workers": WORKERS, "shards": SHARDS}  # fmt: skip
    summary = {"wall_s": float(trace["time_s"][-1]), "updates": pushes, "status": "ended"}
    return RecordedRun("synthetic", {"settings": settings}, summary, (trace,) * SHARDS, np.empty(0, CALL_DTYPE))


async def synthetic_events() -> AsyncGenerator[live.Event]:
    """Yield what the dashboard sends to the page of a job with such pushes, in real time and without an end."""
    builder, begin_s, sent = live.MessageBuilder(), time.monotonic(), 0
    while True:
        await asyncio.sleep(live.EVERY_S)
        elapsed_s = time.monotonic() - begin_s
        count = int(elapsed_s * PUSHES_PER_S) - sent
        records = synthetic_trace(count, sent).tobytes()
        sent += count
        workers = [
            pb.WorkerProgress(worker=worker, incarnation=1, state="training", updates=sent // WORKERS)
            for worker in range(WORKERS)
        ]
        progress = pb.Progress(
            model="sigmoid100", dataset="mnist", mode="async", phase="training", optimizer="sgd", batch_size=BATCH,
            version=sent, samples=sent * BATCH, total_samples=1 << 40, elapsed_s=elapsed_s, shards=SHARDS,
            shards_joined=SHARDS, workers=workers, samples_per_epoch=100 * LEASE, run="synthetic",
            records=[pb.TraceRecords(shard=shard, records=records) for shard in range(SHARDS)],
        )  # fmt: skip
        yield "progress", builder.build(progress)


@contextmanager
def _served(data: Callable[[], bytes], events: Callable[[], AsyncGenerator[live.Event]] | None = None) -> Iterator[str]:
    """Serve a page within the block, from another thread, and return its address."""
    from downpour.deploy.dashboard import server

    loop, found = asyncio.new_event_loop(), list[Any]()

    async def begin() -> None:
        found.extend(await server.start(server.application(data, events), 0))

    loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield found[1]
    finally:
        asyncio.run_coroutine_threadsafe(found[0].cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def _browser() -> Iterator[Any]:
    """Open headless Chromium, whose window has 1400 × 1000 pixels, within the block."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,1000",
    ):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def frames(driver: Any, address: str, *durations_s: float) -> list[dict[str, float]]:
    """Return frames per second, the 95th percentile of their distance and the JS heap of a page in successive times."""
    driver.get("about:blank")
    driver.get(address)
    _wait(driver, "return !document.getElementById('main').hidden")
    return _counted(driver, *durations_s)


def frames_without_a_page(driver: Any, address: str, duration_s: float) -> dict[str, float]:
    """Return the same of a document that draws nothing while it receives the same events: what the machine permits."""
    driver.get("about:blank")
    driver.get(f"{address}style.css")
    driver.execute_script(RECEIVE_EVENTS)
    (found,) = _counted(driver, duration_s)
    return found


def _counted(driver: Any, *durations_s: float) -> list[dict[str, float]]:
    driver.execute_cdp_cmd("Performance.enable", {})
    time.sleep(WARM_UP_S)
    driver.execute_script(COUNT_FRAMES)
    found = []
    for duration_s in durations_s:
        driver.execute_script("window.gaps.length = 0")
        time.sleep(duration_s)
        gaps = driver.execute_script("return window.gaps")[1:]
        metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        heap_bytes = next(each["value"] for each in metrics if each["name"] == "JSHeapUsedSize")
        rate = 1000 * len(gaps) / sum(gaps)
        found.append({"per_s": rate, "p95_ms": float(np.percentile(gaps, 95)), "heap_bytes": heap_bytes})
    return found


def _wait(driver: Any, script: str) -> None:
    deadline = time.monotonic() + 60
    while not driver.execute_script(script):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the page must reach a state within 60 s: {script}")
        time.sleep(0.05)


def seeks(driver: Any, document: str) -> list[float]:
    """Return the milliseconds of moves to random positions of the run of a report, until the page has drawn them."""
    driver.get(document)
    _wait(driver, "return !document.getElementById('main').hidden")
    positions = np.random.default_rng(0).integers(0, LONG, SEEKS)
    return [float(driver.execute_script(SEEK, int(position))) for position in positions]


def measure(seconds: float) -> dict[str, Row]:
    """Return all measurements of the page with their limits."""
    long = page_data(synthetic_run(LONG))
    replayed = page_data(synthetic_run(REPLAYED_S * PUSHES_PER_S))
    text = one_document("synthetic", long)
    with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder, _browser() as driver:
        report = Path(folder, "report.html")
        report.write_text(text)
        with _served(lambda: replayed) as address:
            (replay,) = frames(driver, f"{address}#at=3000&play=1", seconds)
        with _served(live.live_block, synthetic_events) as address:
            running, _, later = frames(driver, address, seconds, seconds, seconds)
            without = frames_without_a_page(driver, address, seconds)
        moves = seeks(driver, report.as_uri())
    size = sum(map(len, files().values()))
    what = f"{WORKERS} workers, {PUSHES_PER_S:,} pushes/s"
    return {
        f"frames per second, {what}, a replay at × 1": _frames(replay),
        f"frames per second, {what}, live": _frames(running),
        "frames per second of a document that draws nothing and receives the same events": _frames(without),
        "JS heap of the page, live, early and later": (
            f"{running['heap_bytes'] / 1e6:.0f} MB, {later['heap_bytes'] / 1e6:.0f} MB", "bounded"),
        f"move to a random push of {LONG:,}, {SEEKS} times": (
            f"median {np.median(moves):.0f} ms, largest {max(moves):.0f} ms", "200 ms"),
        "files of the page": (f"{size / 1000:.0f} kB", "300 kB"),
        f"report of {LONG:,} pushes, {SHARDS} shards": (f"{len(text.encode()) / 1e6:.2f} MB", "2 MB"),
    }  # fmt: skip


def _frames(found: dict[str, float]) -> Row:
    return f"{found['per_s']:.1f} (95 % of frames within {found['p95_ms']:.1f} ms)", "60"


if __name__ == "__main__":
    print(json.dumps(measure(5.0), indent=2, ensure_ascii=False))
