"""Any input to any call is answered with a known status; nothing crashes, hangs or grows, and training continues."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import SESSION_KEY, open_channel
from downpour.protos.frame import encode
from downpour.protos.protocol import PROTOCOL
from downpour.protos.shared_memory import memfd
from downpour.protos.status_codes import STATUS_OF
from downpour.worker.exchange.grpc_stream import METHOD
from tests.support.cluster import DATA, DEADLINE_S, Cluster, Member, running
from tests.support.processes.raw_frames import LAYOUT, ONES
from tests.support.pure.messages import messages

pytestmark = pytest.mark.slow

GROWTH_BYTES = 64 << 20
SHORT_S = 0.3  # calls that wait for something are hung up on
FORESEEN = {*STATUS_OF.values(), grpc.StatusCode.OK, grpc.StatusCode.CANCELLED} - {grpc.StatusCode.INTERNAL}
CALLS = [
    *pb.DESCRIPTOR.services_by_name["Coordinator"].methods,
    *health_pb2.DESCRIPTOR.services_by_name["Health"].methods,
]
few = settings(max_examples=40, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Member, Member]]:
    """A server, a worker that trains before and after, and another whose session is known to the sender."""
    with running(tmp_path_factory.mktemp("ps"), workers=1, learning_rate=0.5, session_s=600, batch_size=4) as cluster:
        good = cluster.join(LAYOUT, beats=False)
        good.await_start(np.zeros(LAYOUT.size, np.float32))
        good.pull()
        bad = cluster.join(LAYOUT, beats=False)
        process = psutil.Process(cluster.servers[0].child.pid)
        before_bytes = process.memory_info().rss
        yield cluster, good, bad
        assert cluster.servers[0].child.poll() is None, cluster.servers[0].errors
        pulled = good.pull()
        after = good.push_pull(ONES)
        assert after.replies[0].outcome == pb.APPLIED
        rate = np.float32(good.control.status().learning_rate)  # one of the calls may have changed it
        np.testing.assert_array_equal(after.flat, pulled.flat - rate)
        assert process.memory_info().rss < before_bytes + GROWTH_BYTES
        assert "Traceback" not in cluster.servers[0].errors, cluster.servers[0].errors


def status(address: str, path: str, sent: Sequence[bytes], session: str = "") -> grpc.StatusCode:
    """Return the status of a call with raw messages; a stream that does not end is cancelled."""
    with open_channel(address) as channel:
        metadata = ((SESSION_KEY, session),) if session else ()
        call = channel.stream_stream(path, None, None)(iter(sent), metadata=metadata, timeout=SHORT_S)
        try:
            for _ in zip(range(3), call, strict=False):
                pass
            call.cancel()
        except grpc.RpcError as failure:
            code = failure.code()
            assert isinstance(code, grpc.StatusCode)
            return code
        return grpc.StatusCode.OK


def stops(call: Any, content: bytes) -> bool:
    """Return whether the call is a request to stop the job, which every client with the token may make."""
    if call.name != "Stop":
        return False
    try:
        pb.StopRequest.FromString(content)
    except DecodeError:
        return False
    return True


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_any_bytes_to_any_call(victim: tuple[Cluster, Member, Member], call: Any) -> None:
    cluster, _, _ = victim
    path = f"/{call.containing_service.full_name}/{call.name}"

    @few
    @given(sent=st.lists(st.binary(max_size=200), max_size=3))
    def check(sent: list[bytes]) -> None:
        if not any(stops(call, content) for content in sent):
            assert status(cluster.address, path, sent) in FORESEEN

    check()


@pytest.mark.parametrize("call", [call for call in CALLS if call.name != "Stop"], ids=lambda call: call.name)
def test_any_message_to_any_call(victim: tuple[Cluster, Member, Member], call: Any) -> None:
    cluster, good, bad = victim
    path = f"/{call.containing_service.full_name}/{call.name}"
    meaningful = [good.job.job, PROTOCOL, bad.session.session, bad.worker, DATA.checksum, "w", 0, 1, LAYOUT.size]

    @few
    @given(sent=st.lists(messages(call.input_type, meaningful), min_size=1, max_size=3))
    def check(sent: list[Message]) -> None:
        assert status(cluster.address, path, [each.SerializeToString() for each in sent]) in FORESEEN

    check()


def test_any_frame_to_a_shard(victim: tuple[Cluster, Member, Member]) -> None:
    """Headers at every limit, with a payload that fits or does not."""
    cluster, _, bad = victim
    meaningful = [bad.worker, bad.incarnation, bad.session.shards[0].generation, "float32", 1]

    @settings(few, max_examples=150)
    @given(
        header=messages(pb.Request.DESCRIPTOR, meaningful),
        payload=st.sampled_from([b"", bytes(24), ONES.tobytes(), b"x"]),
    )
    def check(header: pb.Request, payload: bytes) -> None:
        sent = list(encode(header, payload))
        assert status(cluster.address, METHOD, sent, str(bad.session.session)) in FORESEEN

    check()


@pytest.mark.skipif(not memfd.available(), reason="this system has no shared-memory transport")
def test_any_request_to_attach_shared_memory(victim: tuple[Cluster, Member, Member]) -> None:
    _, good, bad = victim
    name = good.session.shards[0].doorbell
    meaningful = [bad.session.session, PROTOCOL]
    requests = messages(pb.AttachRequest.DESCRIPTOR, meaningful).map(lambda message: message.SerializeToString())

    @few
    @given(
        request=st.binary(min_size=1, max_size=200) | requests, more=st.binary(max_size=50), descriptor=st.booleans()
    )
    def check(request: bytes, more: bytes, descriptor: bool) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line, open("/dev/null") as null:
            line.settimeout(DEADLINE_S)
            line.connect("\0" + name)
            with suppress(BrokenPipeError, ConnectionResetError):  # the server may close the connection
                socket.send_fds(line, [request], [null.fileno()] if descriptor else [])
                line.send(more or b"x")
                line.recv(1 << 16)  # a reply or the end of the connection; TimeoutError if neither comes

    check()


def test_any_event_of_a_shard(tmp_path: Path) -> None:
    """A client with the token may register as shard 1; the real shard is accepted after it."""
    with running(tmp_path, workers=1, shards=1) as cluster:
        cluster.servers[0].kill()
        flags = ["--shards=2", "--workers=1", f"--run-dir={tmp_path / 'two'}"]
        first = cluster.start("two-0", "-m", "downpour.ps", *flags)
        cluster.servers = [first]
        cluster.address = str(first.announcement()["address"])
        joined = pb.ShardEvent(joined=pb.ShardAddress(shard=1, address="127.0.0.1:1", generation=1))

        @settings(few, max_examples=100)
        @given(events=st.lists(messages(pb.ShardEvent.DESCRIPTOR, [0, 1, 2]), max_size=4))
        def check(events: list[Message]) -> None:
            sent = [joined.SerializeToString(), *(event.SerializeToString() for event in events)]
            path = "/downpour.v1.Coordinator/Follow"
            assert status(cluster.address, path, sent) in FORESEEN

        check()
        second = cluster.start("two-1", "-m", "downpour.ps", "--shard=1", f"--coordinator={cluster.address}")
        second.announcement()
        cluster.servers.append(second)
        (member,) = cluster.train(LAYOUT, 1)
        member.pull()
        np.testing.assert_array_equal(member.push_pull(ONES).flat, -0.1 * ONES)
        assert "Traceback" not in first.errors, first.errors
