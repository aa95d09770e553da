"""What every server process needs at its ends: an address to listen at, an announcement, signals, metrics."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from downpour.protos import memfd
from downpour.protos.channel import SERVER_OPTIONS
from downpour.protos.credentials import TokenCheck, adopt, check_secured, server_credentials
from downpour.protos.errors import Unsupported
from downpour.ps.config import ServerSettings
from downpour.ps.data_plane.interceptor import CallInterceptor
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.data_plane.shared_memory import SharedMemoryListener
from downpour.ps.monitoring.prometheus import PrometheusExporter, ShardMetrics


def quieten_broken_calls() -> None:
    """Has gRPC not print a traceback for each call whose caller hung up while it was answered."""
    for name in ("grpc._cython.cygrpc", "asyncio"):
        logging.getLogger(name).addFilter(_tells_of_a_fault)


def _tells_of_a_fault(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ != "ExecuteBatchError"


class PortInUse(Exception):
    """The address to listen on is taken or not ours."""


async def listen(settings: ServerSettings, add: Callable[[grpc.aio.Server], None]) -> tuple[grpc.aio.Server, str]:
    """Starts a server with health checks; returns it and the address under which others reach it.

    Raises:
        PortInUse: The address cannot be bound.
        NotSecured: Strangers could reach and use it.
    """
    quieten_broken_calls()
    _check_free(settings.bind)
    identity = adopt(settings)
    check_secured(settings.bind, identity, settings.insecure)
    secure, checks = server_credentials(identity), [TokenCheck(identity.token)] if identity.token else []
    server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=[*checks, CallInterceptor()])
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


def _check_free(bind: str) -> None:
    """Raises PortInUse if somebody listens there: gRPC would find out too, and write lines of its own about it."""
    host, _, port = bind.rpartition(":")
    try:
        places = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return  # a name that gRPC may know more about
    for family, kind, protocol, _, place in places:
        with suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(place)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise _port_in_use(bind) from error


def _port_in_use(bind: str) -> PortInUse:
    return PortInUse(
        f"--bind must be a free address of this machine; received {bind}, which cannot be bound. "
        "Stop what listens there or use port 0."
    )


def open_doorbell(
    settings: ServerSettings, host: ShardRuntime, broken: Callable[[int], None] = lambda worker: None
) -> SharedMemoryListener | None:
    """The shared-memory transport, where it is wanted and this system has it.

    Raises:
        Unsupported: Nothing else is wanted, and this system does not have it; or its folder cannot be used.
    """
    if settings.transport == "grpc":
        return None
    try:
        if memfd.available():
            return SharedMemoryListener(host, broken, settings.doorbell_dir)
        reason = "no memfd_create"
    except OSError as error:
        if settings.doorbell_dir is not None:
            raise Unsupported(
                f"--doorbell-dir must be a folder in which this server may make a socket; received "
                f"{settings.doorbell_dir}: {error.strerror}. Make it, and give it to user {os.geteuid()}; or use "
                "--transport grpc."
            ) from error
        reason = str(error)
    if settings.transport == "shm":
        raise Unsupported(f"--transport shm needs Linux with memfd and Unix sockets; here: {reason}. Use auto or grpc.")
    return None


def announce(**facts: object) -> None:
    """Prints one JSON line for whoever started the process."""
    print(json.dumps({"event": "listening", **facts, "pid": os.getpid()}), flush=True)


def on_signals(act: Callable[[str], None]) -> None:
    """Calls `act` with the signal's name on SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, act, signal.Signals(number).name)


def open_exporter(settings: ServerSettings, metrics: ShardMetrics) -> PrometheusExporter | None:
    """The endpoint for Prometheus, where it is wanted.

    Raises:
        PortInUse: Its address cannot be bound.
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
