"""gRPC channels and servers: limits and keepalive, the same on both sides, and the memory of their messages."""

from __future__ import annotations

import ctypes
import errno
import functools
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import grpc

from downpour.protos.access import tls_check
from downpour.protos.credentials import SERVER_NAME, Metadata, ShowToken, channel_credentials, presented_to
from downpour.protos.frame import MESSAGE_LIMIT_BYTES
from downpour.protos.system.descriptors import most_open

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # as <malloc.h> numbers them
SESSION_KEY = "downpour-session"

_LIMITS: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    # Limit of unread data on a stream. By default, gRPC raises it with the bandwidth to many MB per stream.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
    # Few large frames and reads, instead of many of 16 and 8 kB, save a tenth of the round-trip time of 318 kB.
    ("grpc.http2.max_frame_size", 1 << 20),
    ("grpc.experimental.tcp_read_chunk_size", 1 << 19),
    ("grpc.experimental.tcp_min_read_chunk_size", 1 << 18),
    ("grpc.experimental.tcp_max_read_chunk_size", 1 << 20),
]
CLIENT_OPTIONS: list[tuple[str, int]] = [
    *_LIMITS,
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),  # a reconnect is a new connection, not a shared broken one
    ("grpc.enable_http_proxy", 0),
]
_TLS_OPTIONS: list[tuple[str, int | str]] = [*CLIENT_OPTIONS, ("grpc.ssl_target_name_override", SERVER_NAME)]
LEAST_CONNECTIONS = 64  # that a server accepts, however few descriptors its process may open
SERVER_OPTIONS: list[tuple[str, int]] = [
    *_LIMITS,
    ("grpc.server_handshake_timeout_ms", 10_000),  # of a connection that says nothing; by default two minutes
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a second listener
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
]


class RpcNetwork(Protocol):
    """The interface of gRPC to the network, which a simulator replaces."""

    def open_channel(self, address: str) -> grpc.Channel:
        """Open a channel to `HOST:PORT`."""

    def open_aio_channel(self, address: str) -> grpc.aio.Channel:
        """Open a channel to `HOST:PORT` for an event loop."""

    def aio_server(self, interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]]) -> grpc.aio.Server:
        """Return a server that does not listen yet."""

    def check_free(self, bind: str) -> None:
        """Raise OSError if the address `HOST:PORT` is in use on this machine."""

    def difference_in_tls(self, address: str) -> str:
        """Return why this process and the server at `HOST:PORT` cannot agree on TLS; empty if that is not certain."""


class SystemNetwork:
    """gRPC over the network of the operating system."""

    def open_channel(self, address: str) -> grpc.Channel:
        """Open a channel to `HOST:PORT`."""
        identity = presented_to(address)
        secure = channel_credentials(identity)
        if secure is not None:
            return grpc.secure_channel(address, secure, options=_TLS_OPTIONS)
        channel = grpc.insecure_channel(address, options=CLIENT_OPTIONS)
        return grpc.intercept_channel(channel, ShowToken(identity.metadata)) if identity.token else channel

    def open_aio_channel(self, address: str) -> grpc.aio.Channel:
        """Open a channel to `HOST:PORT` for an event loop."""
        secure = channel_credentials(presented_to(address))
        if secure is not None:
            return grpc.aio.secure_channel(address, secure, options=_TLS_OPTIONS)
        return grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS)

    def aio_server(self, interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]]) -> grpc.aio.Server:
        """Return a server that does not listen yet."""
        connections = max(LEAST_CONNECTIONS, most_open() // 2)  # the rest is for files and the other transports
        options = [*SERVER_OPTIONS, ("grpc.max_allowed_incoming_connections", connections)]
        return grpc.aio.server(options=options, interceptors=interceptors)

    def check_free(self, bind: str) -> None:
        """Raise OSError if the address `HOST:PORT` is in use on this machine."""
        host, _, port = bind.rpartition(":")
        try:
            places = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError:
            return  # a name that only gRPC may be able to resolve
        for family, kind, protocol, _, place in places:
            with suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(place)
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        taken = error
                        break
        else:
            return
        raise taken

    def difference_in_tls(self, address: str) -> str:
        """Return why this process and the server at `HOST:PORT` cannot agree on TLS; empty if that is not certain."""
        return tls_check.difference_in_tls(address, presented_to(address).authority)


_network: RpcNetwork = SystemNetwork()


def use_network(network: RpcNetwork) -> None:
    """Replace the network of this process."""
    global _network
    _network = network


def open_channel(address: str) -> grpc.Channel:
    """Open a channel to `HOST:PORT` with the project's limits and keepalive, and this process's identity."""
    return _network.open_channel(address)


def open_aio_channel(address: str) -> grpc.aio.Channel:
    """Open such a channel for an event loop; its calls must carry `call_metadata`."""
    return _network.open_aio_channel(address)


def aio_server(interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]]) -> grpc.aio.Server:
    """Return a server with the project's limits and keepalive, which does not listen yet."""
    return _network.aio_server(interceptors)


def check_free(bind: str) -> None:
    """Raise OSError if the address `HOST:PORT` is in use; gRPC detects that too, but logs messages of its own."""
    _network.check_free(bind)


def difference_in_tls(address: str) -> str:
    """Return why this process and the server at `HOST:PORT` cannot agree on TLS; empty if that is not certain.

    gRPC only reports a connection that was closed, and repeats the handshake until the deadline of a call.
    """
    return _network.difference_in_tls(address)


def call_metadata(address: str) -> Metadata:
    """Return the metadata of a call to `HOST:PORT` on a channel for an event loop; with TLS the channel adds it."""
    identity = presented_to(address)
    return () if identity.authority else identity.metadata


@functools.cache
def _mallopt() -> Callable[[int, int], int] | None:
    """Return glibc's function that sets a parameter of its allocator; None under another C library."""
    try:
        function: Callable[[int, int], int] = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return None
    return function


def keep_freed_memory(arenas: int = 0, kept_bytes: int = 0) -> None:
    """Keep freed memory for later use, instead of returning each message's pages to the kernel.

    This saves a quarter of the processor time of a gRPC push-pull of 102 MB. It has an effect under glibc only.

    Args:
        arenas: The largest number of heaps, each of which keeps its memory; 0 leaves glibc's default.
        kept_bytes: The memory that is kept at the end of each heap; at least 16 MiB.
    """
    mallopt = _mallopt()
    if mallopt is None:
        return
    mallopt(_MMAP_THRESHOLD, 32 << 20)
    mallopt(_TRIM_THRESHOLD, min(max(kept_bytes, 16 << 20), (1 << 31) - 1))
    mallopt(_TOP_PAD, 1 << 20)
    if arenas:
        mallopt(_ARENA_MAX, arenas)
