"""What every server process needs: a gRPC server, signals, and metrics for operators."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from downpour.protos.channel import aio_server, check_free
from downpour.protos.credentials import TokenCheck, adopt, check_secured, server_credentials
from downpour.protos.logs import write_output
from downpour.ps.config import ServerSettings
from downpour.ps.data_plane.interceptor import CallInterceptor
from downpour.ps.monitoring.prometheus import PrometheusExporter, ShardMetrics


def silence_broken_calls() -> None:
    """Suppress the traceback that gRPC prints for a call that the client cancelled before the reply."""
    for name in ("grpc._cython.cygrpc", "asyncio"):
        logging.getLogger(name).addFilter(_is_unexpected)


def _is_unexpected(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ != "ExecuteBatchError"


class PortInUse(Exception):
    """The address to listen on is in use, or not an address of this machine."""


async def listen(settings: ServerSettings, add: Callable[[grpc.aio.Server], None]) -> tuple[grpc.aio.Server, str]:
    """Start a server with health checks, and return it and the address under which others reach it.

    Raises:
        PortInUse: The address cannot be bound.
        NotSecured: The address is reachable from the network without TLS or without a token.
    """
    silence_broken_calls()
    try:
        check_free(settings.bind)
    except OSError as error:
        raise _port_in_use(settings.bind) from error
    identity = adopt(settings)
    check_secured(settings.bind, identity, settings.insecure)
    secure, checks = server_credentials(identity), [TokenCheck(identity.token)] if identity.token else []
    server = aio_server([*checks, CallInterceptor()])
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    add(server)
    try:
        bind = settings.bind
        port = server.add_secure_port(bind, secure) if secure else server.add_insecure_port(bind)
    except RuntimeError as error:
        raise _port_in_use(settings.bind) from error
    await server.start()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    host = settings.bind.rpartition(":")[0]
    return server, settings.advertise or f"{host}:{port}"


async def listen_or_close(
    settings: ServerSettings, add: Callable[[grpc.aio.Server], None], exporter: PrometheusExporter | None
) -> tuple[grpc.aio.Server, str]:
    """Start a server like `listen`; if that fails, close the endpoint of the metrics."""
    try:
        return await listen(settings, add)
    except BaseException:
        if exporter is not None:
            exporter.close()
        raise


def _port_in_use(bind: str) -> PortInUse:
    return PortInUse(
        f"--bind must be a free address of this machine; received {bind}, which cannot be bound. "
        "Stop the process that listens there, or use port 0."
    )


def announce(**facts: object) -> None:
    """Print one JSON line that informs the parent process that the server listens, with the given facts."""
    write_output(json.dumps({"event": "listening", **facts, "pid": os.getpid()}))


def on_signals(act: Callable[[str], None]) -> None:
    """Call `act` with the signal's name on SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, act, signal.Signals(number).name)


def open_exporter(settings: ServerSettings, metrics: ShardMetrics) -> PrometheusExporter | None:
    """Open the endpoint for Prometheus if the settings ask for one; return None otherwise.

    Raises:
        PortInUse: The address of the endpoint cannot be bound.
    """
    if settings.metrics_port is None:
        return None
    try:
        return PrometheusExporter(settings.metrics_host, settings.metrics_port, metrics.families)
    except OSError as error:
        raise PortInUse(
            f"--metrics-host and --metrics-port must be a free address of this machine; "
            f"{settings.metrics_host}:{settings.metrics_port}: {error.strerror}."
        ) from error
