"""Raw messages on the stream of a worker, valid or not."""

from __future__ import annotations

import re
from typing import Any

import grpc
import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import SESSION_KEY, open_channel
from downpour.protos.errors import DownpourError
from downpour.protos.frame import Decoder, encode
from downpour.protos.status_codes import error_of
from downpour.worker.exchange.grpc_stream import METHOD
from tests.support.cluster import DEADLINE_S, Member, vector_layout

N = 6
LAYOUT = vector_layout(N)
ONES = np.ones(N, np.float32)


def header(member: Member, **fields: Any) -> pb.Request:
    """Return the header of a valid push, with some of its fields replaced."""
    base = {
        "kind": pb.PUSH_PULL, "worker": member.worker, "incarnation": member.incarnation, "seq": 1,
        "generation": member.session.shards[0].generation, "codec": "float32", "samples": 1, "norm": 1.0,
    }  # fmt: skip
    return pb.Request(**{**base, **fields})


def answers(member: Member, *messages: bytes, session: str | None = None, count: int = 1) -> list[pb.Reply]:
    """Send raw messages to the shard and return its replies; a refusal is raised as its own class of error."""
    address = member.session.shards[0].address
    key = str(member.session.session) if session is None else session
    decoder = Decoder(pb.Reply, lambda header: 1 << 20)
    replies: list[pb.Reply] = []
    with open_channel(address) as channel:
        call = channel.stream_stream(METHOD, None, None)(
            iter(messages), metadata=((SESSION_KEY, key),), timeout=DEADLINE_S
        )
        try:
            for message in call:
                frame = decoder.feed(message)
                if frame is not None:
                    replies.append(frame.header)
        except grpc.RpcError as failure:
            raise error_of(failure, address) from failure
    assert len(replies) == count
    return replies


def refused(error: type[DownpourError], says: str, member: Member, *messages: bytes, **options: Any) -> None:
    """Check that the shard refuses raw messages with an error whose text matches `says`."""
    with pytest.raises(error) as caught:
        answers(member, *messages, **options)
    assert re.search(says, str(caught.value)), str(caught.value)


def frame(request: pb.Request, payload: bytes = ONES.tobytes()) -> tuple[bytes, ...]:
    return tuple(encode(request, payload))


def announcing(request: pb.Request, payload_bytes: int) -> bytes:
    """Return the first message of a frame whose header announces a payload that the message does not contain."""
    request.payload_bytes = payload_bytes
    packed = request.SerializeToString()
    return len(packed).to_bytes(4, "little") + packed + bytes(-(4 + len(packed)) % 16)
