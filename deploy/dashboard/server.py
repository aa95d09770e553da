"""The HTTP server of the dashboard: it listens on loopback, and its headers isolate the page from other sites.

It answers only requests whose Host header names the loopback address and the port of the page, so that a page of
another site whose name resolves to 127.0.0.1 (DNS rebinding) receives nothing. In a container it may listen on all
addresses, where the container's host publishes the port on loopback only.
"""

from __future__ import annotations

import asyncio
import gzip
import hmac
import json
import os
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from aiohttp import web

from downpour.deploy.dashboard.config import Refused
from downpour.deploy.dashboard.page_files import TYPES, files
from downpour.protos.sentences.sentence import sentence, to_json

if TYPE_CHECKING:  # the playground uses this server without gRPC's streams
    from downpour.deploy.dashboard.live import Event

LOOPBACK = "127.0.0.1"
HOSTS = (LOOPBACK, "localhost")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MOST_VIEWERS = 8
SECRET_HEADER = "X-Downpour-Secret"
LARGEST_REQUEST_BYTES = 4096
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(
    data: Callable[[], bytes],
    events: Callable[[], AsyncGenerator[Event]] | None = None,
    control: Control | None = None,
) -> web.Application:
    """Return the web application that serves the page and its data.

    Args:
        data: A function that returns the block for each page that is opened; it is called in a thread.
        events: The source of the events for an open page; None if the run does not change.
        control: The object that operates the job for requests with its secret; None if the job cannot be operated.
    """

    async def block(request: web.Request) -> web.Response:
        body = await asyncio.to_thread(data)
        return web.Response(body=body, content_type="application/octet-stream")

    app = web.Application(middlewares=[only_from_this_host], client_max_size=LARGEST_REQUEST_BYTES)
    app.on_response_prepare.append(_add_headers)
    app.router.add_get("/data", block)
    if events is not None:
        streams = Streams(events)
        app.router.add_get("/events", streams.send, allow_head=False)
        app.on_shutdown.append(streams.end)
    if control is not None:
        app.router.add_post("/control", control.handle)
    app.router.add_get("/{path:.*}", page_file)
    return app


@web.middleware
async def only_from_this_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request only if it was addressed to loopback, by name or number, and to the port of the page."""
    host, _, port = request.host.rpartition(":")
    socket = request.transport.get_extra_info("sockname") if request.transport else None
    if host not in HOSTS or socket is None or port != str(socket[1]):
        allowed = " or ".join(f"{name}:{socket[1] if socket else 'PORT'}" for name in HOSTS)
        raise web.HTTPMisdirectedRequest(text=f"the Host header must be {allowed}; received {request.host[:200]!r}\n")
    return await handler(request)


async def page_file(request: web.Request) -> web.Response:
    """Return a file of the page, compressed if the browser accepts that."""
    name = request.match_info["path"] or "index.html"
    if name not in files():
        raise web.HTTPNotFound()
    kind = TYPES[PurePosixPath(name).suffix]
    response = web.Response(body=files()[name], content_type=kind, charset="utf-8")
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        response.body, response.headers["Content-Encoding"] = _compressed(name), "gzip"
    return response


class Control:
    """The endpoint through which a page that presents the secret, or the job's token, operates the job.

    A page of another origin can send neither the header with the secret nor JSON without a preflight, which this
    server does not answer (CSRF).

    Attributes:
        secret: The token that a request must contain, drawn at random for this dashboard.
    """

    def __init__(self, act: Callable[[Mapping[str, Any]], Awaitable[str]], token: str = "") -> None:
        """Create the endpoint.

        Args:
            act: A function that carries out a requested action.
            token: The token of the job, which is accepted like the secret; empty if the job has none.
        """
        self.secret = secrets.token_urlsafe(24)
        self._act, self._accepted = act, [each.encode() for each in (self.secret, token) if each]

    async def handle(self, request: web.Request) -> web.Response:
        """Reply `{done}` after an action, and `{refused}` with the reason otherwise, as `to_json` returns sentences."""
        shown = request.headers.get(SECRET_HEADER, "").encode()
        if not any([hmac.compare_digest(shown, each) for each in self._accepted]):
            return _refusal(403, sentence("secret_needed"))
        if request.headers.get("Origin") != f"http://{request.host}" or request.content_type != "application/json":
            return _refusal(403, sentence("own_page_needed"))
        try:
            content = await request.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            return _refusal(400, sentence("object_needed"))
        try:
            return web.json_response({"done": to_json(await self._act(content))})
        except Refused as refusal:
            return _refusal(409, refusal.args[0])


def _refusal(status: int, reason: str) -> web.Response:
    return web.json_response({"refused": to_json(reason)}, status=status)


class Streams:
    """The streams of server-sent events of all open pages."""

    def __init__(self, events: Callable[[], AsyncGenerator[Event]]) -> None:
        """Create streams without viewers; `events` yields the events for each viewer."""
        self._events = events
        self._viewers: set[asyncio.Task[Any]] = set()

    async def send(self, request: web.Request) -> web.StreamResponse:
        """Send events until there are no more or the page is closed."""
        if len(self._viewers) >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"at most {MOST_VIEWERS} pages can be open at once; close one\n")
        task = asyncio.current_task()
        assert task is not None
        self._viewers.add(task)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await response.prepare(request)
            async with aclosing(self._events()) as stream:
                async for name, content in stream:
                    await response.write(f"event: {name}\ndata: {json.dumps(content)}\n\n".encode())
        except (ConnectionError, asyncio.CancelledError):
            pass  # the page was closed, or `end` cancels the stream: aiohttp needs the response in both cases
        finally:
            self._viewers.discard(task)
        return response

    async def end(self, app: web.Application) -> None:
        """End all streams, which otherwise continue until their pages are closed."""
        for task in list(self._viewers):
            task.cancel()


@cache
def _compressed(name: str) -> bytes:
    return gzip.compress(files()[name], 9, mtime=0)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def port_taken(port: int, error: OSError) -> str:
    """Return the message that a port cannot be bound."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"--port must be free; received {port}: {reason}. Choose another one, or 0, with which the system chooses it"


async def start(app: web.Application, port: int, listen: str = LOOPBACK) -> tuple[web.AppRunner, str]:
    """Listen on a port; return the runner, to be cleaned up, and the page's address on this host.

    Raises:
        OSError: The port is not free.
    """
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, listen, port)
        await site.start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner, f"http://{LOOPBACK}:{runner.addresses[0][1]}/"
