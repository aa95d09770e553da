"""The worker's side of the transports: connections to a shard by the names of `downpour.protos.transports`."""

from __future__ import annotations

from dataclasses import dataclass

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError, InvalidRequest, Unreachable
from downpour.protos.shared_memory import memfd
from downpour.protos.transports import AUTO, TRANSPORTS, load, transport_names
from downpour.worker.exchange.grpc_stream import GrpcTransport, Loop
from downpour.worker.exchange.shared_memory import SharedMemoryTransport
from downpour.worker.exchange.transport import Transport


@dataclass(frozen=True)
class Route:
    """The parameters with which a transport reaches one shard.

    Attributes:
        shard: The address of the shard, and the name of its Unix socket.
        session: The number of the worker's session.
        request_limit_bytes: The largest payload of a request.
        reply_limit_bytes: The largest payload of a reply.
        timeout_s: The time within which a reply or a keep-alive message must arrive, in seconds.
        loop: The event loop that the worker's transports share.
        buffers: The number of replies whose payloads may be read at the same time.
    """

    shard: pb.ShardAddress
    session: int
    request_limit_bytes: int
    reply_limit_bytes: int
    timeout_s: float
    loop: Loop
    buffers: int


def connect(wanted: str, route: Route) -> tuple[str, Transport]:
    """Return a connection to a shard and the name of its transport.

    Args:
        wanted: A name of `TRANSPORTS`, or `auto` for the first of them that works.
        route: The parameters with which to reach the shard.

    Raises:
        InvalidRequest: No transport has this name.
        DownpourError: The transport cannot reach the shard.
    """
    if wanted not in transport_names():
        raise InvalidRequest(f"a transport must be one of {', '.join(transport_names())}; received {wanted!r}.")
    names = list(TRANSPORTS) if wanted == AUTO else [wanted]
    for name in names:
        try:
            transport: Transport = load(TRANSPORTS[name].connect)(route)
            return name, transport
        except DownpourError:
            if name == names[-1]:
                raise
    raise AssertionError("there must be at least one transport")


def connect_shared_memory(route: Route) -> Transport:
    """Return a connection over shared memory.

    Raises:
        Unreachable: The shard is not on this host, or this system has no shared memory.
    """
    address, doorbell = route.shard.address, route.shard.doorbell
    try:
        if not doorbell:
            raise Unreachable("the shard offers no Unix socket")
        if not memfd.available():
            raise Unreachable("this system has no memfd")
        size_bytes = max(route.request_limit_bytes, route.reply_limit_bytes)
        return SharedMemoryTransport(address, doorbell, route.session, size_bytes, route.timeout_s)
    except DownpourError as error:
        raise Unreachable(
            f"--transport shm needs the shard at {address} on this host, under the same user: {error}. "
            "Use --transport auto."
        ) from error


def connect_grpc(route: Route) -> Transport:
    """Return a stream, which the first request opens."""
    address, limit_bytes = route.shard.address, route.reply_limit_bytes
    return GrpcTransport(address, route.session, limit_bytes, route.timeout_s, route.loop, route.buffers)
