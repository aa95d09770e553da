"""The real page in a real browser: what it shows equals the trace and the summary, served and as a report."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.deploy.dashboard.config import ReportSettings
from downpour.deploy.dashboard.page_files import files
from downpour.deploy.dashboard.report import report as report_command
from tests.support.cluster import Process, running, vector_layout, wait_until
from tests.support.processes.browser import Browser, browsing
from tests.support.pure.recorded_trace import write_run

pytestmark = pytest.mark.browser
PUSHES, WORKERS, SHARDS = 600, 4, 2
WILD = "<img src=x onerror=alert(1)></script><b>bold</b>"
SEEK_LIMIT_MS = 200


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run-1"
    write_run(folder, pushes=PUSHES, workers=WORKERS, shards=SHARDS)
    return folder


@contextmanager
def dashboard_of(source: str, log: Path) -> Iterator[str]:
    """The address of the page that `downpour dashboard SOURCE` serves."""
    process = Process(log, "-m", "downpour", "dashboard", source)
    try:
        assert process.child.stdout is not None
        line = process.child.stdout.readline().decode()
        found = re.search(r"http://127\.0\.0\.1:\d+/(?:#secret=\S+)?", line)
        assert found, f"{line!r}; {process.errors}"
        yield found[0]
    finally:
        process.child.terminate()
        assert process.wait() == 0
        assert process.child.stdout is not None
        process.child.stdout.close()


@pytest.fixture(scope="module")
def served(run: Path) -> Iterator[str]:
    with dashboard_of(str(run), run.parent / "dashboard.log") as address:
        yield address


@pytest.fixture(scope="module")
def report(run: Path) -> str:
    """The address of the file that `downpour report RUN_DIR` writes."""
    write_report(run)
    return (run / "report.html").as_uri()


@pytest.fixture(params=["served", "report"])
def address(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Iterator[None]:
    """No console error in any test, and no request that leaves the host."""
    yield
    assert browser.complaints() == []
    elsewhere = [
        url for url in browser.requests() if not re.match(r"http://127\.0\.0\.1:\d+/|file:|data:|about:|blob:", url)
    ]
    assert elsewhere == []


def write_report(run: Path) -> None:
    assert report_command(ReportSettings(run=str(run))) == 0


def set_language(browser: Browser, language: str) -> None:
    change = "const field = document.getElementById('language'); field.value = arguments[0];"
    browser.run(f"{change} field.dispatchEvent(new Event('change'))", language)
    browser.wait(f"return document.documentElement.lang === '{language}'", language)


def summary_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return content


def test_the_last_position_shows_the_results_of_trace_and_summary(browser: Browser, address: str, run: Path) -> None:
    browser.open(address)
    trace, summary = np.load(run / "trace.npy"), summary_of(run)
    applied = trace[trace["outcome"] == 0]
    assert int(browser.fact("version")) == trace["version"][-1]
    assert int(browser.fact("updates")) == len(applied) == summary["updates"]
    assert int(browser.fact("dropped")) == summary["dropped"]
    assert int(browser.fact("samples")) == summary["samples"]
    assert float(browser.fact("mean_staleness")) == pytest.approx(summary["staleness"]["mean"])
    assert float(browser.fact("time")) == pytest.approx(summary["wall_s"], abs=1e-5)
    for fact, name in {
        "test_accuracy": "test_accuracy", "samples_per_s": "samples_per_s", "summary_updates": "updates",
        "bytes_pushed": "bytes_pushed", "train_loss": "train_loss",
    }.items():  # fmt: skip
        assert float(browser.fact(fact)) == pytest.approx(summary[name])
    computed = float(trace["compute_s"].sum())
    assert float(browser.fact("speedup")) == pytest.approx(computed / summary["wall_s"], rel=1e-3)
    assert 0 < float(browser.fact("efficiency")) <= 1
    assert browser.shown("[data-fact=test_accuracy]") == "92.36 %"
    for worker in range(WORKERS):
        own = applied[applied["worker"] == worker]
        cell = f"[data-worker='{worker}'] [data-column="
        assert browser.shown(f"{cell}updates]") == f"{len(own):,}"
        assert float(browser.shown(f"{cell}mean_staleness]")) == pytest.approx(own["staleness"].mean(), abs=0.006)
        assert int(browser.shown(f"{cell}largest]")) == own["staleness"].max()
    for shard in range(SHARDS):
        assert browser.shown(f"#slide [data-version='{shard}']") == f"version {trace['version'][-1]}"


def test_the_slider_lands_on_the_right_version(browser: Browser, address: str, run: Path) -> None:
    browser.open(address)
    trace = np.load(run / "trace.npy")
    for position in (1, 37, 300, PUSHES, 2):
        browser.seek(position)
        record = trace[position - 1]
        assert int(browser.fact("version")) == record["version"]
        assert float(browser.fact("loss")) == pytest.approx(float(record["loss"]), rel=1e-6)
        assert browser.shown("#slide [data-version='0']") == f"version {record['version']}"


def test_a_version_can_be_typed(browser: Browser, served: str, run: Path) -> None:
    browser.open(served)
    for version in (1, 250, 12):
        browser.run(
            "const field = document.getElementById('version'); field.value = arguments[0];"
            "field.dispatchEvent(new Event('change'));",
            version,
        )
        assert int(browser.fact("version")) == version


def test_the_keyboard_steps_push_by_push(browser: Browser, served: str, run: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    trace = np.load(run / "trace.npy")
    browser.open(f"{served}#at=100")
    browser.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert int(browser.fact("updates")) == (trace["outcome"][:101] == 0).sum()
    browser.keys(Keys.HOME)
    assert int(browser.fact("updates")) == 0
    browser.keys(Keys.END)
    assert int(browser.fact("updates")) == (trace["outcome"] == 0).sum()
    browser.keys("-", "-", "+")
    assert float(browser.run("return document.getElementById('speed').value")) == 1 / 4


def test_it_plays_and_pauses(browser: Browser, served: str) -> None:
    browser.open(f"{served}#at=10&speed=0.0625")
    browser.keys(" ")
    browser.wait(
        "return Number(document.querySelector('[data-fact=version]').dataset.value) > 20", "the replay continues"
    )
    browser.keys(" ")
    before = browser.fact("version")
    browser.wait("return location.hash.includes('at=')", "the address names the moment")
    assert browser.fact("version") == before


def test_any_version_of_a_long_run_is_shown_within_200_ms(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path / "long", pushes=20_000, workers=8, shards=2)
    write_report(tmp_path / "long")
    browser.open((tmp_path / "long" / "report.html").as_uri())
    for position in (19_999, 1, 15_000, 7_500, 19_000):
        times_ms: list[float] = []
        while (
            len(times_ms) < 30 and min(times_ms, default=np.inf) > SEEK_LIMIT_MS
        ):  # other work of the machine delays some
            browser.seek(0)
            times_ms.append(browser.seek(position))
        assert min(times_ms) <= SEEK_LIMIT_MS, (position, times_ms)


def test_every_chart_is_drawn_shows_its_values_and_leads_to_a_moment(browser: Browser, address: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    drawn = (
        "const canvas = document.querySelector(`#${arguments[0]} canvas`);"
        "if (!canvas) return false;"
        "const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        "return new Set(new Uint32Array(pixels.buffer)).size > 10"
    )
    for theme, axis in (("light", "time"), ("dark", "updates")):
        browser.open(f"{address}#lang=es&theme={theme}&x={axis}")
        for chart in ("loss", "accuracy", "throughput", "speedup", "efficiency", "rate", "bytes"):
            browser.run("document.getElementById(arguments[0]).scrollIntoView({block: 'center'})", chart)
            wait_until(partial(browser.run, drawn, chart), f"{chart} is drawn in several colours")
            assert browser.run("return document.getElementById(arguments[0]).ariaLabel", chart)
            area = browser.driver.find_element("css selector", f"#{chart} .u-over")
            ActionChains(browser.driver).move_to_element(area).click().perform()
            shown = browser.shown(f"#{chart} .values")
            assert re.match(r"[\d.,]+( s)?: ", shown), (chart, shown)
            assert 0.35 * PUSHES < int(browser.run("return document.getElementById('slider').value")) < 0.65 * PUSHES
            browser.run("document.getElementById('end').click()")


@pytest.mark.parametrize("language", ["en", "es"])
def test_all_texts_are_in_the_chosen_language(browser: Browser, address: str, language: str) -> None:
    browser.open(f"{address}#lang={language}")
    texts = json.loads(files()[f"texts/{language}.json"])
    page = files()["index.html"].decode()
    assert browser.run("return document.documentElement.lang") == language
    shown = browser.run(
        "return [...document.querySelectorAll('[data-text]')].map((e) => [e.dataset.text, e.textContent])"
    )
    assert shown and all(text == texts[key] for key, text in shown)
    assert {key for key, _ in shown} == set(re.findall(r'data-text="(\w+)"', page))
    labels = browser.run(
        "return [...document.querySelectorAll('[data-label]')].map((e) => [e.dataset.label, e.ariaLabel])"
    )
    assert all(text == texts[key] for key, text in labels)


def test_the_language_can_be_changed_and_is_kept_in_the_address(browser: Browser, served: str) -> None:
    browser.open(f"{served}#lang=en")
    browser.run("const s = document.getElementById('language'); s.value = 'es'; s.dispatchEvent(new Event('change'))")
    browser.wait("return document.documentElement.lang === 'es' && location.hash.includes('lang=es')", "Spanish")
    assert browser.shown("#play") == "Reproducir"
    assert "pasos de duración exponencial" in browser.shown("#staleness-key")


def test_no_two_events_lie_over_each_other(browser: Browser, address: str) -> None:
    browser.open(f"{address}#at=300")
    browser.run("document.getElementById('events').scrollIntoView()")
    boxes = "[...document.querySelectorAll('#events li')].map((each) => each.getBoundingClientRect())"
    browser.wait(f"return {boxes}.every((box) => box.height > 0)", "the events are laid out")
    edges = browser.run(f"return {boxes}.map((box) => [box.top, box.bottom])")
    assert len(edges) > 5 and all(above[1] <= below[0] + 1 for above, below in zip(edges, edges[1:], strict=False))


def test_a_link_opens_the_view_that_it_was_taken_from(browser: Browser, served: str, run: Path) -> None:
    browser.open(f"{served}#at=321&speed=0.25&x=updates&span=all&lang=es&theme=dark")
    values = browser.run(
        "return ['slider', 'speed', 'axis', 'span', 'language', 'theme'].map((id) => document.getElementById(id).value)"
    )
    assert values == ["321", "0.25", "updates", "all", "es", "dark"]
    assert browser.run("return document.documentElement.dataset.theme") == "dark"
    browser.seek(322)
    browser.wait("return location.hash.includes('at=322')", "the address follows")


def test_texts_of_a_job_are_never_parsed_as_html(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "wild"
    write_run(folder, pushes=50, workers=2, shards=1, model=WILD, optimizer=WILD, mode="async")
    summary = summary_of(folder) | {"status": WILD, "notes": [WILD]}
    (folder / "summary.json").write_text(json.dumps(summary))
    write_report(folder)
    browser.open((folder / "report.html").as_uri())
    assert WILD in browser.shown("#job") and WILD in browser.shown("#events")
    assert browser.run("return document.querySelectorAll('img, b[onerror], #job b, #events b').length") == 0


@pytest.mark.parametrize("width", [360, 800, 1900])
@pytest.mark.parametrize("workers", [2, 64])
def test_nothing_is_wider_than_the_window(browser: Browser, tmp_path: Path, width: int, workers: int) -> None:
    write_run(tmp_path / "run", pushes=300, workers=workers, shards=3)
    write_report(tmp_path / "run")
    browser.resize(width, 900)
    try:
        browser.open(f"{(tmp_path / 'run' / 'report.html').as_uri()}#at=200")
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_report_needs_no_network(browser: Browser, report: str) -> None:
    browser.driver.execute_cdp_cmd("Network.enable", {})
    conditions = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)
    try:
        browser.requests()
        browser.open(report)
        assert int(browser.fact("updates")) > 0
        assert [url for url in browser.requests() if url.startswith("http")] == []
    finally:
        browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions | {"offline": False})


def test_a_running_job_is_shown_while_it_runs(browser: Browser, tmp_path: Path) -> None:
    layout = vector_layout(8)
    ones = np.ones(layout.size, np.float32)
    with (
        running(tmp_path, shards=2, workers=1, learning_rate=0.25, mode="async") as cluster,
        dashboard_of(cluster.address, tmp_path / "log") as address,
    ):
        browser.open(address.partition("#")[0])
        assert "waiting for workers" in browser.shown("#results")
        member, *_ = cluster.train(layout, 1)
        member.pull()
        for count in (20, 60):
            for _ in range(count):
                member.push_pull(ones, samples=4)
            done = cluster.status().version
            browser.wait(
                f"return document.querySelector('[data-fact=version]').dataset.value == {done}", f"version {done}"
            )
            assert int(browser.fact("updates")) == done == int(browser.shown("[data-worker='0'] [data-column=updates]"))
        browser.wait(
            "return document.querySelector(`#slide [data-version='1']`).textContent === 'version 80'", "shard 1"
        )
        status = cluster.status()
        for fact, value in {"bytes_pushed": status.bytes_pushed, "bytes_pulled": status.bytes_pulled}.items():
            assert value > 0
            browser.wait(f"return document.querySelector('[data-fact={fact}]')?.dataset.value == {value}", fact)
        browser.seek(30)  # an earlier position while the job continues
        assert int(browser.fact("version")) == 30
        browser.run("document.getElementById('end').click()")
        assert float(browser.fact("learning_rate")) == 0.25
        assert "Worker 0 joined" in browser.shown("#events")
        cluster.stop()
        browser.wait(
            "return document.querySelector('[data-fact=status]').dataset.value === 'failed'", "the end is shown"
        )
        assert browser.shown("#message") == ""


def test_a_job_is_operated_only_with_the_secret(browser: Browser, tmp_path: Path) -> None:
    layout = vector_layout(8)
    with (
        running(tmp_path, shards=1, workers=1, mode="async") as cluster,
        dashboard_of(cluster.address, tmp_path / "log") as address,
    ):
        plain, _, secret = address.partition("#secret=")
        cluster.train(layout, 1)
        browser.open(plain)
        browser.wait("return document.querySelectorAll('#worker-controls button').length === 3", "buttons of worker 0")
        assert browser.run("return [...document.querySelectorAll('#controls button')].every((each) => each.disabled)")
        assert "secret" in browser.shown("#controls-status")
        browser.open(address)
        assert secret not in browser.run("return location.href")
        button = "#worker-controls [data-action=kill]"
        browser.wait(f"return document.querySelector('{button}')?.disabled === false", "buttons that work")
        browser.run(f"document.querySelector('{button}').click()")  # the worker of this test is no process of its own
        browser.wait(
            "return document.getElementById('controls-status').textContent.includes('another program')", "a refusal"
        )
        assert cluster.status().phase == "training"
        assert ["409" in line for line in browser.complaints()] == [True]  # Chromium reports every such answer
        for status, label in (("paused", "Resume the job"), ("training", "Pause the job")):
            browser.run("document.getElementById('pause').click()")
            shown = "document.querySelector('[data-fact=status]').dataset.value"
            browser.wait(f"return {shown} === '{status}'", f"the job is {status}")
            assert browser.shown("#pause") == label
        for name, value, text in (("mode", "bsp", "mode bsp (was async)"), ("mode", "localsgd:4", "push a difference")):
            browser.run(
                f"document.getElementById('set-{name}').value = '{value}'; document.getElementById('set').click()"
            )
            shown = "document.getElementById('controls-status').textContent"
            browser.wait(f"return {shown}.includes('{text}')", f"an answer with {text}")
        assert cluster.status().mode == "bsp"
        browser.wait("return document.getElementById('set-mode').value === 'bsp'", "the mode in effect")
        browser.wait("return document.getElementById('job').textContent.includes('async → bsp')", "both modes")
        browser.run("document.getElementById('checkpoint').click()")
        browser.wait(
            "return document.getElementById('controls-status').textContent.includes('checkpoint')", "an answer"
        )
        for text in ("The job was paused", "The job was resumed", "Checkpoint"):
            browser.wait(f"return document.getElementById('events').textContent.includes('{text}')", text)
        set_language(browser, "es")
        assert "El trabajo se pausó" in browser.shown("#events")
        assert "cambio desde la versión" in browser.shown("#events")
        for selector, text in (
            ("#add-worker", "ningún lanzador observa este trabajo"),
            (button, "es otro programa"),
            ("#checkpoint", "tiene la versión"),
        ):
            browser.run("document.querySelector(arguments[0]).click()", selector)
            browser.wait(f"return document.getElementById('controls-status').textContent.includes('{text}')", text)
        browser.run("document.getElementById('set-mode').value = 'bps'; document.getElementById('set').click()")
        shown = "document.getElementById('controls-status').textContent"
        browser.wait(f"return {shown}.includes('debe ser uno de') && {shown}.includes('quiso decir bsp')", "a refusal")
        set_language(browser, "en")
        browser.run("document.getElementById('add-worker').click()")
        browser.wait("return document.getElementById('controls-status').textContent.includes('launcher')", "a refusal")
        browser.run("window.confirm = () => true; document.getElementById('drain').click()")
        browser.wait("return document.getElementById('controls-status').textContent.startsWith('Done')", "a drain")
        assert cluster.status().phase in ("draining", "finishing", "ended")
        assert all("409" in line for line in browser.complaints())
        browser.run("sessionStorage.clear()")
