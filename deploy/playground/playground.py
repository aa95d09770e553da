"""`downpour playground`: serves the page until it is interrupted."""

from __future__ import annotations

import asyncio
import signal
import sys

from downpour.deploy.playground.config import PlaygroundSettings
from downpour.protos.system.command import install_command

EXIT_USAGE = 2


def playground(settings: PlaygroundSettings) -> int:
    """Serve the page; return the exit status once a signal ends it."""
    try:
        from downpour.deploy.dashboard import server
        from downpour.deploy.playground.application import application
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        print(f"downpour playground: aiohttp must be installed: {install_command('dashboard')}", file=sys.stderr)
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
        print(f"downpour playground: {server.port_taken(settings.port, error)}", file=sys.stderr)
        return EXIT_USAGE
    return 0
