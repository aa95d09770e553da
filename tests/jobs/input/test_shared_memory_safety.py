"""A worker can do a shard no harm through shared memory, and none of it remains after a job."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError, UnknownWorker, Unreachable
from downpour.protos.shared_memory import memfd
from tests.support.cluster import Cluster, running, wait_until
from tests.support.processes.shared_memory import (
    LAYOUT,
    ONES,
    N,
    attach_request,
    connected,
    doorbell,
    region,
    transport_of,
)

pytestmark = pytest.mark.skipif(not memfd.available(), reason="this system has no memfd: auto is gRPC there")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path, workers=1, learning_rate=1) as cluster:
        yield cluster


def test_workers_can_only_read_the_weights(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    descriptor = transport_of(member)._descriptors[1]
    assert not member.pull().flat.flags.writeable
    with pytest.raises(PermissionError):
        mmap.mmap(descriptor, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(OSError):
        os.ftruncate(descriptor, 0)


@pytest.mark.parametrize(
    ("fields", "seals", "size", "says"),
    [
        ({}, 0, 4 * N, "sealed against shrinking"),
        ({"region_bytes": 8 * N}, fcntl.F_SEAL_SHRINK, 8 * N, "at most 4,000 bytes"),
        ({}, fcntl.F_SEAL_SHRINK, 4 * N - 1, "as large as announced"),
        ({"region_bytes": 0}, fcntl.F_SEAL_SHRINK, 4 * N, "as large as announced"),
        ({"session": 12345}, fcntl.F_SEAL_SHRINK, 4 * N, "register again"),
        ({"protocol": 99}, fcntl.F_SEAL_SHRINK, 4 * N, "received 99"),
    ],
)
def test_a_bad_attach_request_is_refused(
    cluster: Cluster, fields: dict[str, int], seals: int, size: int, says: str
) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    with connected(member) as line, region(size, seals) as fd:
        socket.send_fds(line, [attach_request(member, **fields)], [fd])
        assert says in pb.Reply.FromString(line.recv(8192)).reason
        assert line.recv(8192) == b""
    np.testing.assert_array_equal(member.push_pull(ONES).flat, -ONES)


def test_an_attach_request_without_memory_or_with_garbage_is_refused(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    with connected(member) as line:
        line.send(attach_request(member))
        assert "one descriptor" in pb.Reply.FromString(line.recv(8192)).reason
    with connected(member) as line:
        line.send(b"\xff" * 100)
        assert "must be of the type AttachRequest" in pb.Reply.FromString(line.recv(8192)).reason
    with connected(member) as line, open("/dev/null", "rb") as null:
        socket.send_fds(line, [attach_request(member)], [null.fileno()])
        assert "must be a memfd" in pb.Reply.FromString(line.recv(8192)).reason
    assert member.pull().versions == (0,)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (pb.Request(kind=pb.PUSH_PULL, payload_bytes=4 * N + 4, codec="float32"), "at most 4,000"),
        (pb.Request(kind=pb.PUSH_PULL, payload_bytes=1 << 60, codec="float32"), "at most 4,000"),
        (pb.Request(kind=pb.PULL, payload_bytes=4), "at most 0"),
        (pb.Request(kind=pb.PUSH_PULL, worker=7, incarnation=9, codec="float32"), "whose session it is"),
        (b"\xff" * 50, "must be of the type Request"),
        (b"\x0a" * 9000, "must be of the type Request"),
    ],
)
def test_a_bad_request_is_refused(cluster: Cluster, request_: pb.Request | bytes, says: str) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="grpc")
    with connected(member) as line, region(4 * N) as fd:
        socket.send_fds(line, [attach_request(member)], [fd])
        message, descriptors, *_ = socket.recv_fds(line, 8192, 1)
        os.close(descriptors[0])
        line.send(request_ if isinstance(request_, bytes) else request_.SerializeToString())
        assert says in pb.Reply.FromString(line.recv(8192)).reason
    assert member.push_pull(ONES).versions == (1,)


def test_a_killed_server_and_a_killed_worker_leave_nothing(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    with running(tmp_path, workers=1, learning_rate=1) as cluster:
        (member,) = cluster.train(LAYOUT, 1, transport="shm")
        name = doorbell(member)
        assert name in Path("/proc/net/unix").read_text()
        cluster.servers[0].child.kill()
        cluster.servers[0].child.wait()
        wait_until(lambda: name not in Path("/proc/net/unix").read_text(), "the socket is gone")
        client = member.client
        client._links[0]._timeout_s = 0.2
        with pytest.raises(Unreachable, match="its socket is not served"):
            client.pull()
    assert {entry for entry in os.listdir("/dev/shm") if "downpour" in entry} <= before


def test_memory_of_workers_that_have_left_is_used_again(tmp_path: Path) -> None:
    with running(tmp_path, workers=1, learning_rate=1, session_s=1, checkpoint_every="off") as cluster:
        (member,) = cluster.train(LAYOUT, 1, transport="shm")
        arenas = set()
        for _ in range(12):
            other = cluster.join(LAYOUT, transport="shm")
            other.client.pull()
            member.push_pull(ONES)
            other.control.leave(pb.LeaveRequest(session=other.session.session))
            with pytest.raises(DownpourError) as ended:
                other.client.pull()
            assert isinstance(ended.value, UnknownWorker | Unreachable)
            member.pull()
            arenas.add(os.fstat(transport_of(member)._descriptors[1]).st_size)
        assert len(arenas) == 1
