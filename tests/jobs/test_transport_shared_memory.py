"""Shared memory: chosen where it works, the same as gRPC in what it does, and safe from what workers send."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.protos import doorbell_socket as bell
from downpour.protos import memfd
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import PROTOCOL
from downpour.protos.errors import DeadlineExceeded, DownpourError, FutureVersion, UnknownWorker, Unreachable
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.hyperparameters import Hyperparameters
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Outcome, Push
from downpour.ps.core.shard import Shard
from downpour.worker.exchange.client import Client
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.exchange.shared_memory import SharedMemoryTransport
from tests.support.cluster import Cluster, Member, running, vector_layout, wait_until

pytestmark = pytest.mark.skipif(not memfd.available(), reason="this system has no memfd: auto is gRPC there")

N = 1000
LAYOUT = vector_layout(N)
ONES = np.ones(N, np.float32)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path, workers=1, learning_rate=1) as cluster:
        yield cluster


def doorbell(member: Member) -> str:
    return member.session.shards[0].doorbell


def link(member: Member) -> SharedMemoryTransport:
    (only,) = member.client._links
    assert isinstance(only, SharedMemoryTransport)
    return only


@contextmanager
def knocking(member: Member) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.settimeout(30)
        line.connect("\0" + doorbell(member))
        yield line


@contextmanager
def region(size: int, seals: int = fcntl.F_SEAL_SHRINK) -> Iterator[int]:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    yield fd
    os.close(fd)


def knock(member: Member, **fields: Any) -> bytes:
    given = {"protocol": PROTOCOL, "session": member.session.session, "region_bytes": 4 * N, **fields}
    return pb.AttachRequest(**given).SerializeToString()


# ---------------------------------------------------------------------------------------------- the choice


@pytest.mark.parametrize(("wanted", "chosen"), [("auto", "shm"), ("shm", "shm"), ("grpc", "grpc")])
def test_what_is_chosen_on_one_host(cluster: Cluster, wanted: str, chosen: str) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport=wanted)
    assert member.client.transports == [chosen]
    np.testing.assert_array_equal(member.push_pull(ONES).flat, -ONES)


def test_a_doorbell_that_nobody_answers_means_grpc_or_a_refusal(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1)
    member.session.shards[0].doorbell = "downpour-of-another-host"
    client = Client(member.session, LAYOUT, "float32", 30.0, "auto")
    assert client.transports == ["grpc"]
    client.close()
    with pytest.raises(Unreachable, match="on this host, under the same user.*Use --transport auto"):
        Client(member.session, LAYOUT, "float32", 30.0, "shm")


def test_a_server_without_shared_memory_has_no_doorbell(tmp_path: Path) -> None:
    with running(tmp_path, workers=1, transport="grpc") as cluster:
        (member,) = cluster.train(LAYOUT, 1, transport="auto")
        assert not doorbell(member)
        assert member.client.transports == ["grpc"]


@pytest.fixture
def bells() -> Iterator[Path]:
    """A folder with a short path, as the path of a socket must be short."""
    with tempfile.TemporaryDirectory(prefix="bells-") as folder:
        yield Path(folder)


def test_a_doorbell_in_a_folder_is_found_by_its_path(tmp_path: Path, bells: Path) -> None:
    with running(tmp_path, workers=1, learning_rate=1, doorbell_dir=bells) as cluster:
        (member,) = cluster.train(LAYOUT, 1, transport="shm")
        path = Path(doorbell(member))
        assert list(bells.iterdir()) == [path] and path.stat().st_mode & 0o777 == 0o600
        np.testing.assert_array_equal(member.push_pull(ONES).flat, -ONES)
        cluster.servers[0].child.terminate()
        cluster.servers[0].wait()
        assert not list(bells.iterdir())


def test_a_server_removes_the_doorbells_of_killed_servers_and_no_others(tmp_path: Path, bells: Path) -> None:
    with running(tmp_path, workers=1, doorbell_dir=bells) as cluster:
        cluster.servers[0].kill()
    (dead,) = bells.iterdir()
    (other := bells / "downpour-notes").touch()
    living, name = bell.listen(str(bells))
    with living:
        assert set(bells.iterdir()) == {other, Path(name)} and dead != Path(name)
        second, second_name = bell.listen(str(bells))
        assert set(bells.iterdir()) == {other, Path(name), Path(second_name)}
        bell.close(second, second_name)
        assert set(bells.iterdir()) == {other, Path(name)}


def test_a_folder_for_doorbells_that_is_not_there_is_refused(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    server = cluster.start(
        "ps-0", "-m", "downpour.ps", f"--runs-dir={tmp_path / 'runs'}", f"--doorbell-dir={tmp_path / 'no'}"
    )
    assert server.wait() == 1
    assert "--doorbell-dir must be a folder" in server.errors and "No such file" in server.errors
    assert not list((tmp_path / "runs").iterdir())
    far = cluster.start("ps-1", "-m", "downpour.ps", f"--doorbell-dir=/{'x' * bell.FOLDER_LIMIT_BYTES}")
    assert far.wait() == 2
    assert "--doorbell-dir must be a folder whose path has at most" in far.errors
    cluster.close()


# ---------------------------------------------------------------------------------------------- the same semantics


def test_both_transports_give_the_same_weights_and_the_same_trace(tmp_path: Path) -> None:
    found = []
    for transport in ("shm", "grpc"):
        (tmp_path / transport).mkdir()
        rng = np.random.default_rng(0)
        with running(tmp_path / transport, 2, workers=1, optimizer="adam") as cluster:
            (member,) = cluster.train(LAYOUT, 1, transport=transport)
            assert member.client.transports == [transport] * 2
            for step in range(5):
                gradient = rng.standard_normal(N, np.float32)
                pulled = member.push_pull(gradient, np.inf if step == 2 else 1.0, samples=3, loss=step)
            flat = pulled.flat.copy()
            cluster.stop()
            trace = cluster.trace()
        names = [name for name in trace.dtype.names or () if not name.startswith("time")]
        found.append((flat, [trace[name].tolist() for name in names]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_a_request_is_sent_again_when_the_line_breaks_and_counts_once(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    member.client.push(ONES, member.push_info())
    link(member)._hang_up()
    pulled = member.client.pulled()
    np.testing.assert_array_equal(pulled.flat, -ONES)
    assert member.push_pull(ONES).versions == (2,)


def test_a_worker_whose_replies_come_soon_looks_for_them(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    looks: list[None] = []
    monkeypatch.setattr("downpour.worker.exchange.spin_wait.os.sched_yield", lambda: looks.append(None))
    for _ in range(10):
        member.push_pull(ONES)
    assert looks


def test_weights_that_a_worker_reads_do_not_change_under_the_pushes_of_others(tmp_path: Path) -> None:
    with running(tmp_path, workers=2, learning_rate=1) as cluster:
        reader, writer = cluster.train(LAYOUT, 2, transport="shm")
        held = reader.pull().flat
        for _ in range(10):
            writer.push_pull(ONES)
        np.testing.assert_array_equal(held, 0)
        np.testing.assert_array_equal(reader.pull().flat, -10)


def test_with_overlap_the_weights_before_the_last_are_kept_too(tmp_path: Path) -> None:
    with running(tmp_path, workers=2, learning_rate=1) as cluster:
        reader, writer = cluster.train(LAYOUT, 2, transport="shm")
        overlapping = Client(reader.session, LAYOUT, "float32", 30.0, "shm", overlap=True)
        held = overlapping.pull().flat
        overlapping.push(ONES, reader.push_info())
        for _ in range(10):
            writer.push_pull(ONES)
        np.testing.assert_array_equal(held, 0)
        np.testing.assert_array_equal(overlapping.pulled().flat[:1] <= 0, True)
        np.testing.assert_array_equal(held, 0)
        overlapping.close()


def test_a_shard_copies_what_it_buffers_if_it_may_not_keep_it() -> None:
    shard = Shard(
        np.zeros(4, np.float32), Optimizer("sgd", Hyperparameters(learning_rate=1), 4), consistency_of("softsync:2")
    )
    shard.join(0, 1)
    shared = np.ones(4, np.float32)
    first = shard.push(Push(worker=0, incarnation=1, seq=1, base_version=0), shared, owned=False)
    assert first.outcome == Outcome.BUFFERED
    shared[:] = 3
    shard.push(Push(worker=0, incarnation=1, seq=2, base_version=0), shared, owned=False)
    np.testing.assert_array_equal(shard.pull()[0].array, -2)


def test_a_shard_that_does_not_answer_is_noticed(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    client = Client(member.session, LAYOUT, "float32", 0.3, "shm")
    os.kill(cluster.servers[0].child.pid, signal.SIGSTOP)
    try:
        with pytest.raises(DeadlineExceeded, match="within 0.3 s"):
            client.pull()
    finally:
        os.kill(cluster.servers[0].child.pid, signal.SIGCONT)
    client.close()


def test_a_refusal_crosses_as_the_error_that_it_is(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    with pytest.raises(FutureVersion, match="received 99"):
        member.client.push_pull(ONES, PushInfo(base=(99,)))
    assert member.push_pull(ONES).versions == (1,)


# ---------------------------------------------------------------------------------------------- what workers may not do


def test_workers_can_only_read_the_weights(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    descriptor = link(member)._descriptors[1]
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
def test_a_bad_knock_is_refused(cluster: Cluster, fields: dict[str, int], seals: int, size: int, says: str) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    with knocking(member) as line, region(size, seals) as fd:
        socket.send_fds(line, [knock(member, **fields)], [fd])
        assert says in pb.Reply.FromString(line.recv(8192)).reason
        assert line.recv(8192) == b""
    np.testing.assert_array_equal(member.push_pull(ONES).flat, -ONES)


def test_a_knock_without_memory_or_with_garbage_is_refused(cluster: Cluster) -> None:
    (member,) = cluster.train(LAYOUT, 1, transport="shm")
    with knocking(member) as line:
        line.send(knock(member))
        assert "one descriptor" in pb.Reply.FromString(line.recv(8192)).reason
    with knocking(member) as line:
        line.send(b"\xff" * 100)
        assert "must be of the type AttachRequest" in pb.Reply.FromString(line.recv(8192)).reason
    with knocking(member) as line, open("/dev/null", "rb") as null:
        socket.send_fds(line, [knock(member)], [null.fileno()])
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
    with knocking(member) as line, region(4 * N) as fd:
        socket.send_fds(line, [knock(member)], [fd])
        message, descriptors, *_ = socket.recv_fds(line, 8192, 1)
        os.close(descriptors[0])
        line.send(request_ if isinstance(request_, bytes) else request_.SerializeToString())
        assert says in pb.Reply.FromString(line.recv(8192)).reason
    assert member.push_pull(ONES).versions == (1,)


# ---------------------------------------------------------------------------------------------- what is left behind


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
            other.control.leave(other.session.session, False, "")
            with pytest.raises(DownpourError) as ended:
                other.client.pull()
            assert isinstance(ended.value, UnknownWorker | Unreachable)
            member.pull()
            arenas.add(os.fstat(link(member)._descriptors[1]).st_size)
        assert len(arenas) == 1
