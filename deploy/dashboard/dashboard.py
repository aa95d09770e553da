"""`downpour dashboard RUN_DIR`: serves the page about a run until it is interrupted."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from downpour.deploy.dashboard.config import DashboardSettings
from downpour.deploy.dashboard.page_data import page_data
from downpour.deploy.dashboard.recorded_run import NoRun, load_run

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
    folder = Path(settings.source)
    try:
        load_run(folder)
    except NoRun as error:
        print(f"downpour dashboard: {error}", file=sys.stderr)
        return EXIT_USAGE
    app = server.application(lambda: page_data(load_run(folder), settings.first))

    async def serve() -> None:
        runner, address = await server.start(app, settings.port)
        try:
            print(f"{folder}: {address}", flush=True)
            await _interrupted()
        finally:
            await runner.cleanup()

    try:
        asyncio.run(serve())
    except OSError as error:
        print(f"downpour dashboard: --port must be free; received {settings.port} ({error})", file=sys.stderr)
        return EXIT_USAGE
    return 0


async def _interrupted() -> None:
    """Return once SIGINT or SIGTERM has come."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    done: Callable[[], None] = ended.set
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done)
    await ended.wait()
