"""The HTTP application of the playground: the page, the presets, and a stream of snapshots of a training.

A page asks for a stream of snapshots of a training that its address describes; the server stores nothing of it. A
training that is paused is continued by asking for the same one from a later push, which the seed makes possible.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from aiohttp import web

from downpour.deploy.dashboard.page_files import TYPES
from downpour.deploy.dashboard.server import HEADERS, only_from_this_host
from downpour.deploy.playground.config import PRESETS, setup_of
from downpour.deploy.playground.engine import Engine, Setup
from downpour.deploy.playground.page_files import files
from downpour.deploy.playground.snapshots import Snapshots, losses_until
from downpour.protos.sentences.sentence import sentence, to_json

FRAME_S = 0.1
MOST_PUSHES = 20_000  # of one training, which bounds its memory
MOST_VIEWERS = 8
FASTEST = 2000.0  # pushes per second


class RequestedTraining(NamedTuple):
    """A training as the address of a page describes it.

    Attributes:
        setup: What is trained, and how.
        speed: The number of pushes per second.
        begin: The push from which on snapshots are sent.
        still: Whether only the first snapshot is sent.
    """

    setup: Setup
    speed: float
    begin: int
    still: bool

    @classmethod
    def of(cls, query: Mapping[str, str]) -> RequestedTraining:
        """Return the training of a query; raise ValueError or OverflowError if a value is invalid."""
        return cls(
            setup_of(query),
            speed=min(FASTEST, max(1.0, float(query.get("speed", "20")))),
            begin=min(MOST_PUSHES, max(0, int(query.get("from", "0")))),
            still=query.get("still") == "1",
        )


class Viewers:
    """The requests that watch a training now."""

    def __init__(self) -> None:
        """Create an empty set."""
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def full(self) -> bool:
        """Return whether as many trainings run as may run at once."""
        return len(self._tasks) >= MOST_VIEWERS

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the current task within the block."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def end(self, app: web.Application) -> None:
        """Cancel all requests, because the server shuts down."""
        for task in list(self._tasks):
            task.cancel()


def application() -> web.Application:
    """Return the server's application."""
    content, viewers = files(), Viewers()

    async def page(request: web.Request) -> web.Response:
        name = request.match_info["path"] or "index.html"
        if name not in content:
            raise web.HTTPNotFound()
        return web.Response(body=content[name], content_type=TYPES[PurePosixPath(name).suffix], charset="utf-8")

    async def train(request: web.Request) -> web.StreamResponse:
        try:
            training = RequestedTraining.of(request.query)
        except (ValueError, OverflowError) as error:
            return web.json_response({"refused": to_json(error.args[0])}, status=400)
        if viewers.full:
            return web.json_response({"refused": to_json(sentence("most_trainings", most=MOST_VIEWERS))}, status=503)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        with viewers.counted():
            try:
                await _stream(training, request, response)
            except (ConnectionError, asyncio.CancelledError):
                pass  # the page was closed
        return response

    app = web.Application(middlewares=[only_from_this_host])
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(viewers.end)
    app.router.add_get("/presets", _presets)
    app.router.add_get("/train", train, allow_head=False)
    app.router.add_get("/{path:.*}", page)
    return app


async def _presets(request: web.Request) -> web.Response:
    return web.json_response({name: dataclasses.asdict(setup) for name, setup in PRESETS.items()})


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


async def _stream(training: RequestedTraining, request: web.Request, response: web.StreamResponse) -> None:
    """Send snapshots of a training as server-sent events, until it is over."""
    engine = await asyncio.to_thread(Engine, training.setup)
    snapshots = Snapshots(engine, await asyncio.to_thread(losses_until, engine, training.begin))
    await response.prepare(request)
    await response.write(_event("first", await asyncio.to_thread(snapshots.first)))
    owed = 0.0
    while not training.still and engine.pushes < MOST_PUSHES and not engine.diverged:
        await asyncio.sleep(FRAME_S)
        owed += training.speed * FRAME_S
        if owed < 1:
            continue
        await asyncio.to_thread(engine.run, int(owed))
        owed -= int(owed)
        await response.write(_event("state", await asyncio.to_thread(snapshots.take)))
    await response.write(_event("over", {"diverged": engine.diverged}))


def _event(name: str, content: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(content)}\n\n".encode()
