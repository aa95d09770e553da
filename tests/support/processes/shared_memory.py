"""Valid and invalid messages of a worker to a shard over shared memory."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.protocol import PROTOCOL
from downpour.worker.exchange.shared_memory import SharedMemoryTransport
from tests.support.cluster import Member, vector_layout

N = 1000
LAYOUT = vector_layout(N)
ONES = np.ones(N, np.float32)


def doorbell(member: Member) -> str:
    """Return the name of the socket on which the shard accepts shared memory."""
    return member.session.shards[0].doorbell


def transport_of(member: Member) -> SharedMemoryTransport:
    """Return the transport of a worker to its only shard."""
    (only,) = member.client._links
    assert isinstance(only, SharedMemoryTransport)
    return only


@contextmanager
def connected(member: Member) -> Iterator[socket.socket]:
    """Connect to the shard without the transport, to send arbitrary messages."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.settimeout(30)
        line.connect("\0" + doorbell(member))
        yield line


@contextmanager
def region(size: int, seals: int = fcntl.F_SEAL_SHRINK) -> Iterator[int]:
    """Create shared memory of a size with seals, and give its descriptor."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    yield fd
    os.close(fd)


def attach_request(member: Member, **fields: Any) -> bytes:
    """Return a valid request to attach shared memory, with some of its fields replaced."""
    given = {"protocol": PROTOCOL, "session": member.session.session, "region_bytes": 4 * N, **fields}
    return pb.AttachRequest(**given).SerializeToString()
