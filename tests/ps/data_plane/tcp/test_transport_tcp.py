"""The TCP transport: bad input ends one connection with one line of the log, and nothing is lost."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.deploy.certs import CertsSettings, certs
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.access.job_tokens import publish, withdraw
from downpour.protos.credentials import AUTHORITY, SERVER_NAME, AccessSettings, adopt
from downpour.protos.errors import DownpourError, InvalidRequest, TooLarge, UnknownWorker, Unreachable
from downpour.protos.protocol import PROTOCOL
from downpour.protos.tcp.stream_frame import MAGIC, HeaderReceiver, encoded
from downpour.protos.transports import TRANSPORTS
from downpour.ps.data_plane.tcp.listener import MAX_UNATTACHED
from downpour.worker.exchange.client import Client
from downpour.worker.exchange.tcp.transport import TcpTransport
from tests.support.cluster import Cluster, Member, running, vector_layout, wait_until

N = 400_000  # more than the payload that is received without admission
LAYOUT = vector_layout(N)
ONES = np.ones(N, np.float32)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path, workers=1, learning_rate=1) as cluster:
        yield cluster


@pytest.fixture
def member(cluster: Cluster) -> Member:
    (member,) = cluster.train(LAYOUT, 1, transport="tcp")
    return member


@contextmanager
def connected(member: Member) -> Iterator[socket.socket]:
    """Connect to the shard without the transport, to send arbitrary bytes."""
    host, port = member.session.shards[0].tcp.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 30) as line:
        yield line


def attach_request(member: Member, **fields: Any) -> bytes:
    """Return a valid first frame, with some of its fields replaced."""
    given = {"protocol": PROTOCOL, "session": member.session.session, **fields}
    return MAGIC + encoded(pb.AttachRequest(**given))


@contextmanager
def attached(member: Member) -> Iterator[socket.socket]:
    """Connect as a worker that has presented its session, in place of its transport."""
    with connected(member) as line:
        line.sendall(attach_request(member))
        assert reply_of(line) == pb.Reply()
        yield line


def reply_of(line: socket.socket) -> pb.Reply:
    receiver: HeaderReceiver[pb.Reply] = HeaderReceiver(pb.Reply)
    while (reply := receiver.receive(line.recv_into)) is None:
        pass
    return reply


def read(stream: Any, size_bytes: int) -> bytes:
    """Read a number of bytes, and none of those that follow."""
    got = b""
    while len(got) < size_bytes and (more := stream.read(size_bytes - len(got))):
        got += more
    return got


def header(member: Member, **fields: Any) -> pb.Request:
    base = {
        "kind": pb.PUSH_PULL, "worker": member.worker, "incarnation": member.incarnation, "seq": 1,
        "generation": member.session.shards[0].generation, "codec": "float32", "samples": 1, "norm": 1.0,
        "payload_bytes": 4 * N,
    }  # fmt: skip
    return pb.Request(**{**base, **fields})


def is_closed(line: socket.socket) -> bool:
    try:
        return not line.recv(1)
    except ConnectionResetError:
        return True


def complaints(cluster: Cluster) -> list[str]:
    return [line for line in cluster.servers[0].errors.splitlines() if "the TCP connection from" in line]


def trains(cluster: Cluster, member: Member, updates: int = 1) -> None:
    """The worker pushes and pulls over TCP, and every push has counted once."""
    before = cluster.status().version
    for _ in range(updates):
        pulled = member.push_pull(ONES)
        np.testing.assert_array_equal(pulled.flat, -pulled.versions[0] * ONES)
    assert cluster.status().version == before + updates
    assert "Traceback" not in cluster.servers[0].errors


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (b"GET / HTTP/1.1\r\nHost: downpour\r\n\r\n", "must begin with"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "must begin with"),
        (bytes(5000), "must begin with"),
        (MAGIC + b"\xff\xff\xff\xff", "at most 1,024 bytes; received a length of 4,294,967,295"),
        (MAGIC + struct.pack("<I", 8) + b"\xff" * 8, "must be of the type AttachRequest"),
        (MAGIC + struct.pack("<I", 0) + b"more", "must hold as much payload as its header announces, 0 bytes"),
    ],
)
def test_garbage_instead_of_a_first_frame_ends_the_connection_without_a_word(
    cluster: Cluster, member: Member, first: bytes, says: str
) -> None:
    with connected(member) as line:
        line.sendall(first)
        assert is_closed(line)
    (complaint,) = wait_until(lambda: complaints(cluster), "the server logs it")
    assert says in complaint
    trains(cluster, member)


@pytest.mark.parametrize("byte", range(8))
def test_every_bit_of_the_session_counts(member: Member, byte: int) -> None:
    wrong = member.session.session ^ (1 << (8 * byte))
    with connected(member) as line:
        line.sendall(attach_request(member, session=wrong))
        assert reply_of(line).reason.startswith("a session must be in the coordinator's current view")
        assert is_closed(line)
    client = Client(pb.RegisterReply.FromString(member.session.SerializeToString()), LAYOUT, "float32", 5.0, "tcp")
    client.close()
    session = pb.RegisterReply.FromString(member.session.SerializeToString())
    session.session = wrong
    with pytest.raises(UnknownWorker, match="register again"):
        Client(session, LAYOUT, "float32", 5.0, "tcp")


def test_a_worker_of_another_protocol_is_refused(member: Member) -> None:
    with connected(member) as line:
        line.sendall(attach_request(member, protocol=1))
        assert "must speak protocol" in reply_of(line).reason


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"payload_bytes": 1 << 60}, "at most 1,600,000 bytes here; received a header that announces"),
        ({"payload_bytes": 4 * N + 4}, "at most 1,600,000 bytes here"),
        ({"kind": pb.PULL, "payload_bytes": 4}, "at most 0 bytes here"),
        ({"codec": "zip"}, "codec must be one of"),
        ({"worker": 9}, "must come from the worker whose session it is"),
    ],
)
def test_a_bad_header_is_refused_with_its_reason(
    cluster: Cluster, member: Member, fields: dict[str, Any], says: str
) -> None:
    with attached(member) as line:
        with suppress(ConnectionError):  # it may be refused before it has been sent
            line.sendall(encoded(header(member, **fields)) + bytes(min(4 * N, header(member, **fields).payload_bytes)))
        reply = reply_of(line)
        assert reply.status and says in reply.reason
    trains(cluster, member)


def test_two_requests_at_once_are_refused(cluster: Cluster, member: Member) -> None:
    pull = encoded(header(member, kind=pb.PULL, payload_bytes=0))
    with attached(member) as line:
        line.sendall(pull + pull)
        assert "the next must wait for the reply" in reply_of(line).reason
    trains(cluster, member)


def test_the_transport_raises_what_the_shard_refuses(member: Member) -> None:
    link = member.client._links[0]
    assert isinstance(link, TcpTransport)
    for fields, error in (({"worker": 9}, InvalidRequest), ({"codec": "zip"}, InvalidRequest)):
        link.send(header(member, **fields), ONES.data.cast("B"))
        with pytest.raises(error):
            link.receive()
    link.send(header(member, payload_bytes=0), *[ONES.data.cast("B")] * 3)  # refused before it has been sent
    with pytest.raises(TooLarge):
        link.receive()
    assert member.push_pull(ONES).versions == (1,)


def test_a_push_that_breaks_off_is_not_applied(cluster: Cluster, member: Member) -> None:
    for sent in (1, 40, 4096, 2 * N):
        with attached(member) as line:
            line.sendall((encoded(header(member)) + ONES.tobytes())[:sent])
    wait_until(lambda: len(complaints(cluster)) == 4, "every broken frame has one line in the log")
    assert all("has ended within a frame" in line for line in complaints(cluster))
    trains(cluster, member, 3)


def test_silent_connections_are_bounded_and_training_continues(cluster: Cluster, member: Member) -> None:
    with ExitStack() as stack:
        lines = [stack.enter_context(connected(member)) for _ in range(MAX_UNATTACHED + 10)]
        wait_until(lambda: len(complaints(cluster)) == 10, "the oldest are closed")
        assert all(is_closed(line) for line in lines[:10])
        other = cluster.join(LAYOUT, transport="tcp")
        assert other.client.transports == ["tcp"] and other.pull().versions
        trains(cluster, member, 3)


def test_a_slow_reader_stops_nobody(tmp_path: Path) -> None:
    size = 6_000_000
    layout, ones = vector_layout(size), np.ones(size, np.float32)
    with running(tmp_path, workers=3, learning_rate=1, mode="async") as cluster:
        slow, other, third = cluster.train(layout, 3, transport="tcp")
        with attached(slow) as line:
            line.sendall(encoded(header(slow, kind=pb.PULL, payload_bytes=0)))
            stream = line.makefile("rb", buffering=0)
            reply = pb.Reply.FromString(read(stream, struct.unpack("<I", read(stream, 4))[0]))
            for member in (other, third):
                for _ in range(3):
                    version = member.push_pull(ones).versions[0]
            assert version == 6
            weights = np.frombuffer(read(stream, reply.payload_bytes), np.float32)
        assert (weights == weights[0]).all(), "the weights of one version are sent, whatever happens meanwhile"


def test_a_worker_connects_again_after_its_connection_has_broken(cluster: Cluster, member: Member) -> None:
    link = member.client._links[0]
    assert isinstance(link, TcpTransport) and link._line is not None
    trains(cluster, member)
    link._line.shutdown(socket.SHUT_RDWR)
    trains(cluster, member, 2)
    link._line.close()
    trains(cluster, member, 2)


def test_a_server_that_is_killed_within_a_frame_is_unreachable(cluster: Cluster, member: Member) -> None:
    client = Client(member.session, LAYOUT, "float32", 0.5, "tcp")
    cluster.servers[0].child.send_signal(19)  # stopped, it takes what fits into the buffers of its system
    client.push(ONES, member.push_info())
    cluster.servers[0].kill()
    with pytest.raises(Unreachable, match="no parameter server answers"):
        client.pulled()
    client.close()


@contextmanager
def presenting(folder: Path) -> Iterator[None]:
    """Present the token of a folder of `downpour certs`, and trust its authority."""
    adopt(AccessSettings(tls_dir=str(folder)))
    try:
        yield
    finally:
        adopt(AccessSettings())


def test_with_tls_and_a_token(tmp_path: Path) -> None:
    for name in ("ours", "other"):
        assert certs(CertsSettings(folder=str(tmp_path / name))) == 0
    with running(tmp_path, workers=1, learning_rate=1, tls_dir=tmp_path / "ours") as cluster:
        with presenting(tmp_path / "ours"):
            (member,) = cluster.train(LAYOUT, 1, transport="tcp")
            assert member.client.transports == ["tcp"]
            trains(cluster, member, 3)
            with connected(member) as line:  # in plain text
                line.sendall(attach_request(member))
                assert is_closed(line)
            context = ssl.create_default_context(cadata=(tmp_path / "ours" / AUTHORITY).read_text())
            for token in ("", "wrong"):
                with connected(member) as line, context.wrap_socket(line, server_hostname=SERVER_NAME) as secured:
                    secured.sendall(attach_request(member, token=token))
                    assert is_closed(secured)
            assert len(wait_until(lambda: complaints(cluster)[2:] and complaints(cluster), "all are logged")) == 3
        with presenting(tmp_path / "other"), pytest.raises(Unreachable, match="certificate verify failed"):
            Client(member.session, LAYOUT, "float32", 5.0, "tcp")
        with presenting(tmp_path / "ours"):
            trains(cluster, member, 3)


@pytest.mark.parametrize("breaks", [False, True])
def test_with_overlap_the_weights_before_are_read_while_the_next_arrive(
    cluster: Cluster, member: Member, breaks: bool
) -> None:
    client = Client(member.session, LAYOUT, "float32", 30.0, "tcp", overlap=True)
    link = client._links[0]
    assert isinstance(link, TcpTransport) and link._line is not None
    before = client.pull()
    for version in range(1, 6):
        client.push(ONES, member.push_info())
        if breaks:
            link._shut_down()
        after = client.pulled()
        assert (before.flat == 1 - version).all() and (after.flat == -version).all()
        assert after.versions == (version,)
        before = after
    client.push(ONES, member.push_info())
    client.close()


def test_the_port_may_be_chosen_and_another_address_announced(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = Cluster(tmp_path)
        server = refused.start(
            "ps-0", "-m", "downpour.ps", f"--run-dir={tmp_path / 'refused'}", f"--tcp-port={port}", "--workers=1"
        )
        assert server.wait() != 0
        refused.close()
        assert f"--tcp-port must be a free port at the host of --bind; received {port}" in server.errors
    with running(tmp_path, workers=1, tcp_port=port, tcp_advertise=f"localhost:{port}") as cluster:
        (member,) = cluster.train(LAYOUT, 1, transport="tcp")
        assert member.session.shards[0].tcp == f"localhost:{port}"
        assert member.push_pull(ONES).versions == (1,)


def test_a_server_over_grpc_alone_offers_no_tcp(tmp_path: Path) -> None:
    with running(tmp_path, workers=1, transport="grpc") as cluster:
        (member,) = cluster.train(LAYOUT, 1)
        assert not member.session.shards[0].tcp
        with pytest.raises(DownpourError, match="--transport tcp needs a server that offers it"):
            Client(member.session, LAYOUT, "float32", 5.0, "tcp")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_token_of_a_killed_job_does_not_keep_workers_from_a_server_without_one(
    cluster: Cluster, transport: str
) -> None:
    """A launcher that is killed leaves its token behind; the system may give its port to another server."""
    publish(cluster.address, "the token of another job")
    try:
        (member,) = cluster.train(LAYOUT, 1, transport=transport)
        assert member.push_pull(ONES, 1.0).flat.tolist() == [-1.0] * N
    finally:
        withdraw(cluster.address)
