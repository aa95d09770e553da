"""`downpour dashboard RUN_DIR|ADDRESS`: serves the page about a run or a running job until it is interrupted."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from downpour.deploy.dashboard.config import DashboardSettings
from downpour.deploy.dashboard.page_data import page_data
from downpour.deploy.dashboard.recorded_run import NoRun, load_run
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import difference_in_tls, open_channel
from downpour.protos.credentials import presented_to
from downpour.protos.parameter_server_pb2_grpc import CoordinatorStub
from downpour.protos.settings import host_and_port
from downpour.protos.status_codes import error_of
from downpour.protos.system.command import install_command

if TYPE_CHECKING:
    from aiohttp import web

EXIT_FAILED, EXIT_USAGE = 1, 2
ANSWER_S = 5.0  # for the coordinator of the job to answer, before the page is served
SOURCE = "SOURCE must be HOST:PORT of a running job's coordinator, or"
LINGER_S = 1.0  # time after the end of the job for open pages to receive its last message


def dashboard(settings: DashboardSettings, announce: Callable[[str], str] | None = None) -> int:
    """Serve the page; return the exit status once a signal ends it, or the end of the job with `until_over`.

    Args:
        settings: The run or job to show, and the port of the page.
        announce: A function that returns, for the page's address, the line to print once it can be opened.
    """
    try:
        from downpour.deploy.dashboard import server
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        print(f"downpour dashboard: aiohttp must be installed: {install_command('dashboard')}", file=sys.stderr)
        return EXIT_USAGE
    try:
        app, secret = _application(settings)
    except NoRun as error:
        print(f"downpour dashboard: {error}", file=sys.stderr)
        return EXIT_USAGE
    if secret and not settings.until_over and (reason := _unanswered(settings.source)):
        print(f"downpour dashboard: {reason}", file=sys.stderr)
        return EXIT_FAILED

    async def serve() -> None:
        runner, address = await server.start(app, settings.port, settings.listen)
        address += f"#secret={secret}" if secret else ""
        try:
            print(announce(address) if announce else f"the dashboard of {settings.source} is at {address}", flush=True)
            await _ended(settings)
        finally:
            await runner.cleanup()

    try:
        asyncio.run(serve())
    except OSError as error:
        print(f"downpour dashboard: {server.port_taken(settings.port, error)}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def _application(settings: DashboardSettings) -> tuple[web.Application, str]:
    """Return the application that the settings describe, and the secret with which a job can be operated.

    Raises:
        NoRun: The settings name neither a run directory nor an address.
    """
    from downpour.deploy.dashboard import controls, live, server

    folder = Path(settings.source)
    if not folder.exists() and _is_address(settings.source):
        control = server.Control(controls.Controls(settings.source).act, presented_to(settings.source).token)
        return server.application(live.live_block, lambda: live.follow(settings.source), control), control.secret
    load_run(folder, SOURCE)  # to report a run that cannot be shown at once
    return server.application(lambda: page_data(load_run(folder), settings.first)), ""


def _unanswered(address: str) -> str:
    """Return why the coordinator of no job answers at an address, and what to do; empty if one does."""
    try:
        with open_channel(address) as channel:
            CoordinatorStub(channel).Status(pb.StatusRequest(), timeout=ANSWER_S)
    except grpc.RpcError as failure:
        if difference := difference_in_tls(address):
            return difference
        advice = "SOURCE must be the address that server 0 of a running job announced, or a run"
        return f"{error_of(failure, address)}\ndownpour dashboard: {advice}"
    return ""


def _is_address(source: str) -> bool:
    try:
        host_and_port(source)
    except ValueError:
        return False
    return True


async def _ended(settings: DashboardSettings) -> None:
    """Return after SIGINT or SIGTERM, or with `until_over` when the job is over."""
    from downpour.deploy.dashboard import live

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    waiting: list[asyncio.Task[Any]] = [asyncio.create_task(ended.wait())]
    if settings.until_over:
        waiting.append(asyncio.create_task(live.until_over(settings.source)))
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if not ended.is_set():
        await asyncio.wait(waiting[:1], timeout=LINGER_S)
    for task in waiting:
        task.cancel()
