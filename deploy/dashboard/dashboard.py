"""`downpour dashboard RUN_DIR|ADDRESS`: serves the page about a run or a running job until it is interrupted."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from downpour.deploy.dashboard.config import DashboardSettings
from downpour.deploy.dashboard.page_data import page_data
from downpour.deploy.dashboard.recorded_run import NoRun, load_run
from downpour.protos.settings import host_and_port

if TYPE_CHECKING:
    from aiohttp import web

EXIT_USAGE = 2


def dashboard(settings: DashboardSettings) -> int:
    """Serve the page and print its address; return the exit status once a signal ends it."""
    try:
        from downpour.deploy.dashboard import server
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        print("downpour dashboard: aiohttp must be installed: pip install 'downpour-ps[dashboard]'", file=sys.stderr)
        return EXIT_USAGE
    try:
        app = _application(settings)
    except NoRun as error:
        print(f"downpour dashboard: {error}", file=sys.stderr)
        return EXIT_USAGE

    async def serve() -> None:
        runner, address = await server.start(app, settings.port)
        try:
            print(f"the dashboard of {settings.source} is at {address}", flush=True)
            await _interrupted()
        finally:
            await runner.cleanup()

    try:
        asyncio.run(serve())
    except OSError as error:
        print(f"downpour dashboard: --port must be free; received {settings.port} ({error})", file=sys.stderr)
        return EXIT_USAGE
    return 0


def _application(settings: DashboardSettings) -> web.Application:
    """The server's application for what the settings name.

    Raises:
        NoRun: It is neither a run directory nor an address.
    """
    from downpour.deploy.dashboard import live, server

    folder = Path(settings.source)
    if not folder.exists() and _is_address(settings.source):
        return server.application(live.live_block, lambda: live.follow(settings.source))
    load_run(folder)  # to refuse at once what cannot be shown
    return server.application(lambda: page_data(load_run(folder), settings.first))


def _is_address(source: str) -> bool:
    try:
        host_and_port(source)
    except ValueError:
        return False
    return True


async def _interrupted() -> None:
    """Return once SIGINT or SIGTERM has come."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
