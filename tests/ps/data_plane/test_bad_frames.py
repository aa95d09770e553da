"""Invalid frames on the data plane are refused with a message that states what to do, and training continues."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import SESSION_KEY, open_channel
from downpour.protos.errors import DownpourError, Fenced, FutureVersion, InvalidRequest, TooLarge, UnknownWorker
from downpour.ps.data_plane.grpc_stream import STREAMS_PER_SESSION
from downpour.worker.exchange.grpc_stream import METHOD
from tests.support.cluster import DEADLINE_S, Cluster, Member
from tests.support.processes.raw_frames import LAYOUT, ONES, announcing, answers, frame, header, refused


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"base_version": 10**6}, FutureVersion, r"at most the shard's version, \d+; received 1000000\. Pull again"),
        ({"generation": 9}, Fenced, "generation 1 .*received .*generation 9.*Pull again"),
        ({"worker": 0}, InvalidRequest, "received worker 0.*Send the numbers that registration returned"),
        ({"incarnation": 7}, InvalidRequest, "incarnation 1; received .*incarnation 7"),
        ({"seq": 0}, InvalidRequest, "1 or more; received 0"),
        ({"samples": 0}, InvalidRequest, "1 or more samples; received 0"),
        ({"codec": "zip"}, InvalidRequest, "codec must be one of float32.*received 'zip'"),
        ({"kind": 9}, InvalidRequest, "kind must be PUSH_PULL, PULL or INIT; received 9"),
        ({"lease": 77, "stop": 1}, InvalidRequest, "must hold the lease.*received lease 77"),
    ],
)
def test_a_header_that_cannot_be_right(
    member: Member, fields: dict[str, Any], error: type[DownpourError], says: str
) -> None:
    refused(error, says, member, *frame(header(member, **fields)))


@pytest.mark.parametrize(
    ("messages", "error", "says"),
    [
        ((b"",), InvalidRequest, "header's length in 4 bytes; received 0"),
        ((b"\x01",), InvalidRequest, "received 1"),
        ((b"\xff\xff\xff\xff" + bytes(60),), InvalidRequest, "at most 65,536 bytes; received .* 4,294,967,295"),
        ((b"\x08\0\0\0" + b"\xff" * 60,), InvalidRequest, "must be of the type Request; received 8 bytes that are not"),
    ],
)
def test_garbage_instead_of_a_frame(
    member: Member, messages: tuple[bytes, ...], error: type[DownpourError], says: str
) -> None:
    refused(error, says, member, *messages)


def test_a_frame_that_announces_too_many_bytes_is_refused_at_once(member: Member) -> None:
    says = r"at most 24 bytes.*announces 1,152,921,504,606,846,976\. Check that both sides"
    refused(TooLarge, says, member, announcing(header(member), 1 << 60))


def test_a_message_beyond_grpcs_limit_is_refused(member: Member) -> None:
    with pytest.raises(TooLarge):
        answers(member, bytes(5 << 20))


def test_a_truncated_frame(member: Member) -> None:
    refused(InvalidRequest, "ended within one", member, announcing(header(member), 24), bytes(20))


def test_a_continuation_of_garbage(member: Member) -> None:
    refused(InvalidRequest, "24 bytes; received 40", member, announcing(header(member), 24), bytes(40))
    refused(InvalidRequest, "empty message", member, announcing(header(member), 24), b"")


@pytest.mark.parametrize("size", [0, 4, 20, 23])
def test_a_payload_of_the_wrong_length(member: Member, size: int) -> None:
    refused(InvalidRequest, f"6 elements .* 24 bytes.*received {size}", member, *frame(header(member), bytes(size)))


@pytest.mark.parametrize("session", ["", "12", "no number", "9" * 40])
def test_an_unknown_session(member: Member, session: str) -> None:
    refused(UnknownWorker, "register", member, *frame(header(member)), session=session)


def test_the_number_of_streams_of_a_session_is_limited(member: Member) -> None:
    address, key = member.session.shards[0].address, str(member.session.session)
    never = threading.Event()

    def silent() -> Iterator[bytes]:
        yield from frame(header(member, kind=pb.PULL), b"")
        never.wait()

    with open_channel(address) as channel:
        call = channel.stream_stream(METHOD, None, None)
        held = STREAMS_PER_SESSION - ("grpc" in member.client.transports)
        open_ones: list[Any] = [call(silent(), metadata=((SESSION_KEY, key),), timeout=DEADLINE_S) for _ in range(held)]
        for each in open_ones:
            next(each)
        refused(TooLarge, f"at most {STREAMS_PER_SESSION} streams", member, *frame(header(member)))
        for each in open_ones:
            each.cancel()
        never.set()


@pytest.mark.parametrize(
    ("gradient", "fields"),
    [
        (np.array([1, np.nan, 1, 1, 1, 1], np.float32), {}),  # with a norm that lies
        (np.array([1, 1, 1, 1, 1, -np.inf], np.float32), {}),
        (ONES, {"norm": float("nan")}),
        (np.zeros(0, np.float32), {"nonfinite": True}),
    ],
)
def test_a_gradient_with_nan_is_counted_and_dropped(
    cluster: Cluster, member: Member, gradient: np.ndarray, fields: dict[str, Any]
) -> None:
    before, weights = cluster.status().dropped, member.client.pull().flat.copy()
    (reply,) = answers(member, *frame(header(member, **fields), gradient.tobytes()))
    assert (reply.outcome, reply.reason) == (pb.DROPPED, "nonfinite")
    assert cluster.status().dropped == before + 1
    np.testing.assert_array_equal(member.client.pull().flat, weights)


def test_a_duplicate_push_returns_the_cached_reply_and_is_applied_once(cluster: Cluster, member: Member) -> None:
    before = cluster.status()
    message = frame(header(member))
    first, again = answers(member, *message, *message, count=2)
    (later,) = answers(member, *message)
    assert not first.duplicate and again.duplicate and later.duplicate
    assert first.applied_version == again.applied_version == later.applied_version == before.version + 1
    after = cluster.status()
    assert (after.version, after.duplicates) == (before.version + 1, before.duplicates + 2)


def test_a_lease_is_used_by_its_holder_in_order(cluster: Cluster, member: Member) -> None:
    task = member.control.lease(member.session.session)
    assert task.kind == pb.TRAIN
    lease = {"lease": task.lease, "epoch": task.epoch}
    other = cluster.join(LAYOUT)
    cases = [
        (other, (task.start, task.start + 1), "must hold the lease"),
        (member, (task.start + 1, task.start + 2), f"in order, from {task.start}"),
        (member, (task.start, task.stop + 1), f"at most {task.stop}"),
    ]
    for sender, (start, stop), says in cases:
        refused(InvalidRequest, says, sender, *frame(header(sender, start=start, stop=stop, **lease)))
    (reply,) = answers(member, *frame(header(member, start=task.start, stop=task.start + 1, **lease)))
    assert reply.outcome == pb.APPLIED
