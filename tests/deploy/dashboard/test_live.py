"""A running job reaches the page through the coordinator's Watch stream: every record, exact, and only on request."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from downpour.deploy.dashboard import live, server
from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from tests.support.cluster import DEADLINE_S, Cluster, running, vector_layout, wait_until
from tests.support.page_block import unpack

LAYOUT = vector_layout(8)
ONES = np.ones(LAYOUT.size, np.float32)


@pytest.fixture(params=[1, 2])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path, shards=request.param, workers=1) as cluster:
        yield cluster


class Viewer:
    """What a page would have received."""

    def __init__(self) -> None:
        self.events: list[live.Event] = []
        self.closed = threading.Event()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def column(self, name: str, shard: int = 0) -> np.ndarray:
        blocks = [content["block"] for kind, content in list(self.events) if kind == "progress" and content["block"]]
        tables = [unpack(base64.b64decode(block))[1] for block in blocks]
        parts = [table[f"shard{shard}"][name] for table in tables if f"shard{shard}" in table]
        return np.concatenate(parts) if parts else np.empty(0)

    async def follow(self, address: str) -> None:
        async for event in live.follow(address):
            self.events.append(event)


@contextmanager
def watching(address: str) -> Iterator[Viewer]:
    viewer = Viewer()
    thread = threading.Thread(target=lambda: asyncio.run(viewer.follow(address)), daemon=True)
    thread.start()
    wait_until(lambda: viewer.events, "the viewer hears of the job")
    yield viewer
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_a_viewer_gets_every_record_of_every_shard(cluster: Cluster) -> None:
    with watching(cluster.address) as viewer:
        member, *_ = cluster.train(LAYOUT, 1)
        member.pull()
        for _ in range(50):
            member.push_pull(ONES, samples=4)
        shards = range(len(cluster.servers))
        wait_until(lambda: all(len(viewer.column("version", shard)) >= 50 for shard in shards), "all records have come")
        cluster.stop()
    for shard in shards:
        trace = cluster.trace(shard)
        for name in ("version", "worker", "seq", "staleness", "outcome"):
            np.testing.assert_array_equal(viewer.column(name, shard), trace[name], err_msg=f"{name} of shard {shard}")
    assert len(cluster.trace()) == 50
    assert viewer.names[-1] == "over"
    progress = [content["progress"] for name, content in viewer.events if name == "progress"]
    assert progress[-1]["phase"] in ("failed", "ended") and "records" not in json.dumps(progress[-1]["notes"])
    assert all(content["skipped"] == 0 for name, content in viewer.events if name == "progress")
    json.dumps(viewer.events)  # all of it can be sent


def test_a_watcher_receives_records_only_on_request(cluster: Cluster) -> None:
    member, *_ = cluster.train(LAYOUT, 1)
    control = CoordinatorClient(cluster.address, DEADLINE_S)
    stream = control._stub.Watch(pb.WatchRequest(every_s=0.05))
    try:
        member.pull()
        member.push_pull(ONES, samples=4)
        messages = [next(stream) for _ in range(5)]
        assert all(not message.records for message in messages)
    finally:
        stream.cancel()
        control.close()


def test_an_unresponsive_coordinator_ends_the_stream_after_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "GONE_S", 0.2)
    monkeypatch.setattr(live, "RETRY_S", 0.05)
    viewer = Viewer()
    asyncio.run(viewer.follow("127.0.0.1:1"))
    assert viewer.names[-1] == "over" and "trouble" in viewer.names
    reason = next(content["reason"] for name, content in viewer.events if name == "trouble")
    assert reason["code"] == "unreachable" and reason["values"]["address"] == "127.0.0.1:1"
    assert reason["values"]["reason"]["code"] == "cause_refused"


def test_events_reach_the_browser_and_end_with_the_server() -> None:
    async def forever() -> Any:
        yield "progress", {"text": "line\nbreak"}
        await asyncio.Event().wait()

    async def go() -> bytes:
        runner, address = await server.start(server.application(live.live_block, forever), 0)
        async with aiohttp.ClientSession() as session, session.get(f"{address}events") as reply:
            assert reply.headers["Content-Type"] == "text/event-stream"
            first = await reply.content.readuntil(b"\n\n")
            await asyncio.wait_for(runner.cleanup(), 10)
        return first

    assert asyncio.run(go()) == b'event: progress\ndata: {"text": "line\\nbreak"}\n\n'


def test_the_number_of_streams_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forever() -> Any:
        yield "progress", {}
        await asyncio.Event().wait()

    async def go() -> list[int]:
        monkeypatch.setattr(server, "MOST_VIEWERS", 2)
        runner, address = await server.start(server.application(live.live_block, forever), 0)
        async with aiohttp.ClientSession() as session:
            replies = [await session.get(f"{address}events") for _ in range(3)]
            await runner.cleanup()
            return [reply.status for reply in replies]

    assert asyncio.run(go()) == [200, 200, 503]
