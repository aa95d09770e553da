"""`downpour playground`: serves the page until it is interrupted.

A page asks for a stream of snapshots of a training that its address describes; the server keeps nothing of it. A
training that is paused is continued by asking for the same one from a later push, which the seed makes possible.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import signal
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from downpour.deploy.dashboard import page_files
from downpour.deploy.playground.config import PRESETS, PlaygroundSettings, setup_of
from downpour.deploy.playground.engine import Engine
from downpour.deploy.playground.network import EXTENT

EXIT_USAGE = 2
FOLDER = Path(__file__).with_name("page")
SHARED = ("dom.js", "texts.js", "colors.js")  # files of the dashboard's page
GRID = 40  # cells of the picture of the output, in each direction
FRAME_S = 0.1
MOST_PUSHES = 20_000  # of one training, which bounds its memory
MOST_VIEWERS = 8
MOST_EVENTS, MOST_INTERVALS = 200, 400  # in one snapshot
FASTEST = 2000.0  # pushes per second


def files() -> dict[str, bytes]:
    """Return the content of every file of the page, by its path."""
    own = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.suffix in page_files.TYPES}
    return {**{name: page_files.files()[name] for name in SHARED}, **{k: p.read_bytes() for k, p in own.items()}}


class Snapshots:
    """The snapshots of one training for the page, each with what is new since the one before."""

    def __init__(self, engine: Engine) -> None:
        """Begin with the present state of a training."""
        self._engine, self._events, self._intervals = engine, len(engine.events), 0
        axis = (np.arange(GRID) + 0.5) / GRID * 2 * EXTENT - EXTENT
        x, y = np.meshgrid(axis, axis[::-1])
        self._points = np.stack((x.ravel(), y.ravel()), 1)

    def first(self) -> dict[str, Any]:
        """Return what does not change: the points of the data and the sizes of the layers."""
        engine = self._engine
        points = [
            [round(float(x), 3), round(float(y), 3), int(label), test]
            for test, (places, labels) in ((0, engine.train), (1, engine.test))
            for (x, y), label in zip(places, labels, strict=True)
        ]
        return {"points": points, "sizes": engine.network.sizes, "extent": EXTENT, **self.take()}

    def take(self) -> dict[str, Any]:
        """Return the present state, and the pushes and intervals since the last call."""
        engine, flat = self._engine, self._engine.weights
        with np.errstate(all="ignore"):
            outputs = 1 / (1 + np.exp(-np.clip(engine.network.outputs(flat, self._points), -30, 30)))
        grid = np.nan_to_num(outputs * 255).astype(np.uint8)
        events, intervals = engine.events[self._events :], engine.intervals[self._intervals :]
        self._events, self._intervals = len(engine.events), len(engine.intervals)
        staleness = [
            [engine.staleness(worker)[value] for value in range(3 * engine.setup.workers + 1)]
            for worker in range(engine.setup.workers)
        ]
        return {
            "pushes": engine.pushes, "time": engine.time, "version": engine.shard.version,
            "train": _finite(engine.loss()), "test": _finite(engine.loss(test=True)), "accuracy": engine.accuracy(),
            "diverged": engine.diverged, "grid": base64.b64encode(grid.tobytes()).decode(),
            "weights": [_finite(float(value)) for value in flat], "workers": engine.activity(), "staleness": staleness,
            "wait": engine.share("wait"), "spread": engine.spread,
            "events": [dataclasses.astuple(event) for event in events[-MOST_EVENTS:]],
            "intervals": [dataclasses.astuple(each) for each in intervals[-MOST_INTERVALS:]],
        }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def application() -> Any:
    """Return the server's application."""
    from aiohttp import web

    from downpour.deploy.dashboard.server import HEADERS, only_from_this_host

    content = files()
    viewers: set[asyncio.Task[Any]] = set()

    async def page(request: web.Request) -> web.Response:
        name = request.match_info["path"] or "index.html"
        if name not in content:
            raise web.HTTPNotFound()
        return web.Response(
            body=content[name], content_type=page_files.TYPES[PurePosixPath(name).suffix], charset="utf-8"
        )

    async def presets(request: web.Request) -> web.Response:
        return web.json_response({name: dataclasses.asdict(setup) for name, setup in PRESETS.items()})

    async def train(request: web.Request) -> web.StreamResponse:
        """Send snapshots of a training, at `speed` pushes per second from push `from` on."""
        try:
            setup = setup_of(request.query)
            speed = min(FASTEST, max(1.0, float(request.query.get("speed", "20"))))
            begin = min(MOST_PUSHES, max(0, int(request.query.get("from", "0"))))
            still = request.query.get("still") == "1"
        except (ValueError, OverflowError) as error:
            return web.json_response({"refused": str(error)}, status=400)
        if len(viewers) >= MOST_VIEWERS:
            return web.json_response({"refused": f"at most {MOST_VIEWERS} trainings can run at once"}, status=503)
        task = asyncio.current_task()
        assert task is not None
        viewers.add(task)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            engine = await asyncio.to_thread(Engine(setup).run, begin)
            shots = Snapshots(engine)
            await response.prepare(request)
            await response.write(_event("first", await asyncio.to_thread(shots.first)))
            owed = 0.0
            while not still and engine.pushes < MOST_PUSHES and not engine.diverged:
                await asyncio.sleep(FRAME_S)
                owed += speed * FRAME_S
                if owed < 1:
                    continue
                await asyncio.to_thread(engine.run, int(owed))
                owed -= int(owed)
                await response.write(_event("state", await asyncio.to_thread(shots.take)))
            await response.write(_event("over", {"diverged": engine.diverged}))
        except (ConnectionError, asyncio.CancelledError):
            pass  # the page was closed
        finally:
            viewers.discard(task)
        return response

    async def headers(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)

    async def end(app: web.Application) -> None:
        for task in list(viewers):
            task.cancel()

    app = web.Application(middlewares=[only_from_this_host])
    app.on_response_prepare.append(headers)
    app.on_shutdown.append(end)
    app.router.add_get("/presets", presets)
    app.router.add_get("/train", train, allow_head=False)
    app.router.add_get("/{path:.*}", page)
    return app


def _event(name: str, content: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(content)}\n\n".encode()


def playground(settings: PlaygroundSettings) -> int:
    """Serve the page; return the exit status once a signal ends it."""
    try:
        from downpour.deploy.dashboard import server
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        print("downpour playground: aiohttp must be installed: pip install 'downpour-ps[dashboard]'", file=sys.stderr)
        return EXIT_USAGE

    async def serve() -> None:
        runner, address = await server.start(application(), settings.port)
        try:
            print(f"the playground is at {address}", flush=True)
            ended, loop = asyncio.Event(), asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, ended.set)
            await ended.wait()
        finally:
            await runner.cleanup()

    try:
        asyncio.run(serve())
    except OSError as error:
        print(f"downpour playground: --port must be free; received {settings.port} ({error})", file=sys.stderr)
        return EXIT_USAGE
    return 0
