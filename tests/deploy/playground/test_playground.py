"""The playground's server and page: what is shown is what the engine computes, and nothing leaves the host."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator

import aiohttp
import pytest

from downpour.deploy.dashboard import server
from downpour.deploy.playground.application import application
from downpour.deploy.playground.config import PRESETS
from downpour.deploy.playground.engine import Engine, Setup
from downpour.deploy.playground.page_files import files
from tests.support.paths import ROOT
from tests.support.processes.browser import Browser, browsing

LARGEST_PAGE_BYTES = 100_000


def answers(*requests: tuple[str, dict[str, str]]) -> list[tuple[int, str, str]]:
    """Return status, Content-Security-Policy and text of the answers to requests of paths with headers."""

    async def go() -> list[tuple[int, str, str]]:
        runner, address = await server.start(application(), 0)
        found = []
        try:
            async with aiohttp.ClientSession() as session:
                for path, headers in requests:
                    async with session.get(address + path, headers=headers) as reply:
                        policy = reply.headers.get("Content-Security-Policy", "")
                        found.append((reply.status, policy, await reply.text()))
        finally:
            await runner.cleanup()
        return found

    return asyncio.run(go())


def test_a_training_is_sent_from_any_push_on() -> None:
    ((status, policy, text),) = answers(("train?data=xor&hidden=4&workers=3&from=37&still=1", {}))
    assert status == 200 and "default-src 'none'" in policy
    event, data, *_ = text.splitlines()
    assert event == "event: first"
    state = json.loads(data.removeprefix("data: "))
    engine = Engine(Setup(data="xor", hidden=(4,), workers=3)).run(37)
    assert (state["pushes"], state["version"], state["train"]) == (37, 37, pytest.approx(engine.loss()))
    assert [push for push, *_ in state["losses"]] == list(range(1, 38))
    assert state["losses"][-1] == [37, pytest.approx(engine.loss()), pytest.approx(engine.loss(test=True))]


def test_invalid_requests_and_other_hosts_are_refused() -> None:
    found = answers(
        ("train?mode=nothing", {}),
        ("train?speed=x", {}),
        ("../config.py", {}),
        ("presets", {"Host": "attacker.example"}),
    )
    assert [status for status, *_ in found] == [400, 400, 404, 421]
    refused = json.loads(found[0][2])["refused"]
    assert refused["code"] == "one_of" and refused["text"].startswith("must be one of async")


def test_the_page_is_small_and_loads_nothing_from_elsewhere() -> None:
    assert sum(map(len, files().values())) <= LARGEST_PAGE_BYTES
    text = b"\n".join(files().values()).decode()
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
    assert "innerHTML" not in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as found:
        yield found


@pytest.mark.browser
def test_the_page_shows_what_the_engine_computes(browser: Browser) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "downpour", "playground"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split(" is at ")[1].strip()
        browser.requests()
        browser.driver.get(f"{address}#preset=compensated&play=0&from=100&lang=en")
        browser.wait("return document.body.dataset.pushes === '100'", "the training at push 100")
        engine = Engine(PRESETS["compensated"]).run(100)
        assert float(browser.run("return document.body.dataset.loss")) == pytest.approx(engine.loss())
        assert "divides the learning rate" in browser.shown("#story")
        browser.run("document.getElementById('play').click()")
        browser.wait("return Number(document.body.dataset.pushes) > 120", "it continues")
        browser.run(
            "const s = document.getElementById('preset'); s.value = 'bsp_straggler';"
            "s.dispatchEvent(new Event('change'))"
        )
        browser.wait("return document.body.dataset.version > 5 && location.hash.includes('mode=bsp')", "another story")
        browser.run(
            "const s = document.getElementById('language'); s.value = 'es'; s.dispatchEvent(new Event('change'))"
        )
        browser.wait("return document.getElementById('play').textContent === 'Pausa'", "Spanish")
        assert browser.complaints() == []
        browser.run(
            "const f = document.getElementById('setup'); f.elements.mode.value = 'localsgd:4';"
            "f.dispatchEvent(new Event('change', {bubbles: true}))"
        )
        browser.wait(
            "return document.getElementById('message').textContent.includes('mode debe ser uno de')", "a refusal"
        )
        assert {url.split("/")[2] for url in browser.requests() if url.startswith("http")} == {address.split("/")[2]}
        for width in (360, 1900):
            browser.resize(width, 900)
            assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        process.terminate()
        process.communicate()
