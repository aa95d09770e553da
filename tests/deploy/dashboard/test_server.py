"""The dashboard's server answers only requests from this machine, under its own name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from downpour.deploy.dashboard import server
from downpour.deploy.dashboard.page_data import page_data
from downpour.deploy.dashboard.page_files import files
from downpour.deploy.dashboard.recorded_run import load_run
from tests.support.pure.recorded_trace import write_run

Reply = tuple[int, dict[str, str], bytes]


@pytest.fixture
def block(tmp_path: Path) -> bytes:
    write_run(tmp_path / "run")
    return page_data(load_run(tmp_path / "run"))


def ask(block: bytes, *requests: tuple[str, str, dict[str, str]]) -> list[Reply]:
    """Answers of a server to requests: method, path, headers; `{port}` in a header is its port."""

    async def go() -> list[Reply]:
        runner, address = await server.start(server.application(lambda: block), 0)
        port = address.rstrip("/").rpartition(":")[2]
        replies = []
        try:
            async with aiohttp.ClientSession(auto_decompress=False) as session:
                for method, path, headers in requests:
                    sent: Any = {name: value.format(port=port) for name, value in headers.items()}
                    async with session.request(method, address + path, headers=sent) as reply:
                        replies.append((reply.status, dict(reply.headers), await reply.read()))
        finally:
            await runner.cleanup()
        return replies

    return asyncio.run(go())


def test_every_file_of_the_page_is_there_and_the_run(block: bytes) -> None:
    names = [name for name in files() if name != "index.html"]
    plain = {"Accept-Encoding": "identity"}
    replies = ask(block, ("GET", "", plain), ("GET", "data", plain), *(("GET", name, plain) for name in names))
    assert [status for status, _, _ in replies] == [200] * len(replies)
    assert replies[0][2] == files()["index.html"] and replies[1][2] == block
    assert [body for _, _, body in replies[2:]] == [files()[name] for name in names]


@pytest.mark.parametrize(
    "path", ["../server.py", "%2e%2e/server.py", "texts/", "page/main.js", "texts/../../config.py", "x"]
)
def test_other_paths_are_not_found(block: bytes, path: str) -> None:
    ((status, _, _),) = ask(block, ("GET", path, {}))
    assert status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_requests_cannot_change_anything(block: bytes, method: str) -> None:
    ((status, _, _),) = ask(block, (method, "data", {}))
    assert status == 405


def test_a_foreign_host_name_is_refused(block: bytes) -> None:
    strange = [
        "attacker.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1.attacker.example:{port}",
        "0.0.0.0:{port}",
    ]
    own = ["127.0.0.1:{port}", "localhost:{port}"]
    replies = ask(block, *(("GET", path, {"Host": host}) for host in [*strange, *own] for path in ("", "data")))
    assert [status for status, _, _ in replies] == [421] * 2 * len(strange) + [200] * 2 * len(own)
    assert all(block not in body for status, _, body in replies if status != 200)


def test_every_answer_keeps_the_page_to_itself(block: bytes) -> None:
    requests = [("GET", "", {}), ("GET", "data", {}), ("GET", "missing", {}), ("GET", "", {"Host": "attacker.example"})]
    for _, headers, _ in ask(block, *requests):
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';") and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy and "form-action 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers


def test_the_server_listens_only_on_loopback(block: bytes) -> None:
    async def go() -> list[Any]:
        runner, _ = await server.start(server.application(lambda: block), 0)
        try:
            return runner.addresses
        finally:
            await runner.cleanup()

    (address,) = asyncio.run(go())
    assert address[0] == "127.0.0.1"
