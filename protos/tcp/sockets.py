"""The sockets of the TCP transport: their options, and TLS with the certificates of the cluster."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from downpour.protos.credentials import CERTIFICATE, KEY, SERVER_NAME, Identity
from downpour.protos.frame import Buffer

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
MOST_BUFFERS = 512  # of one call of `sendmsg`; Linux permits 1,024
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 10, 5, 3

Send = Callable[[Sequence[Buffer]], int]


def split_address(address: str) -> tuple[str, int]:
    """Return the host and the port of `HOST:PORT`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def set_options(connection: socket.socket) -> None:
    """Send without delay, and detect a peer that has disappeared."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def sender(connection: socket.socket) -> Send:
    """Return the function that sends from several buffers and returns how many bytes it has sent."""
    if isinstance(connection, ssl.SSLSocket):
        send = connection.send
        return lambda buffers: send(buffers[0])
    return connection.sendmsg


def rest_of(buffers: Sequence[Buffer], sent: int) -> list[Buffer]:
    """Return what remains of buffers, from which the first `sent` bytes have been sent."""
    for index, buffer in enumerate(buffers):
        if sent < len(buffer):
            return [memoryview(buffer)[sent:], *buffers[index + 1 :]]
        sent -= len(buffer)
    return []


def server_tls(identity: Identity, folder: str | None) -> ssl.SSLContext | None:
    """Return the TLS of a server with the certificate in its `--tls-dir`; None if it has none."""
    if identity.authority is None or folder is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # no session is resumed
    context.load_cert_chain(Path(folder) / CERTIFICATE, Path(folder) / KEY)
    return context


def client_tls(identity: Identity) -> ssl.SSLContext | None:
    """Return the TLS of a worker, which trusts the cluster's own authority only; None without TLS."""
    if identity.authority is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=identity.authority.decode("ascii"))
    return context


def wrapped(line: socket.socket, context: ssl.SSLContext | None) -> socket.socket:
    """Return a connected socket of a worker after its TLS handshake, or as it is without TLS."""
    return line if context is None else context.wrap_socket(line, server_hostname=SERVER_NAME)
