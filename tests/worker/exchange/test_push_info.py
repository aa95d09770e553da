"""A push has one description: the worker's `PushInfo`, the header of its request, and the server's `Push` agree."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import Slice
from downpour.ps.core.push import Push
from downpour.ps.data_plane.decode_push import decode_push
from downpour.worker.exchange.push_info import PushInfo

OF_CLIENT = {"worker", "incarnation", "seq"}  # the identity of a push, which the client adds
# The fields of the request around a push, and of other requests.
OF_FRAME = {
    "kind", "generation", "codec", "payload_bytes", "pin", "no_pull", "have_version", "retain_previous", "slot",
    "partial",
}  # fmt: skip

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
numbers = st.integers(0, 2**32 - 1)
large_numbers = st.integers(0, 2**63 - 1)
descriptions = st.builds(
    PushInfo,
    base=st.tuples(large_numbers, large_numbers), norm=st.floats(0, allow_nan=False), samples=numbers, loss=finite,
    correct=numbers, steps=st.integers(1, 2**32 - 1), lease=large_numbers, epoch=numbers, start=large_numbers,
    stop=large_numbers, tensors=st.binary(max_size=4), compute_s=finite, repeats=st.booleans(),
)  # fmt: skip


def test_both_sides_and_the_header_have_the_same_fields() -> None:
    of_worker = {field.name for field in dataclasses.fields(PushInfo)} - {"base"} | {"base_version", "nonfinite"}
    of_header = {field.name for field in pb.Request.DESCRIPTOR.fields}
    assert set(Push._fields) == of_worker | OF_CLIENT
    assert of_header == set(Push._fields) | OF_FRAME


@given(descriptions, st.sampled_from([0, 1]), numbers, numbers, large_numbers)
def test_a_description_arrives_as_it_was_sent(
    info: PushInfo, shard: int, worker: int, incarnation: int, seq: int
) -> None:
    header = info.to_request(shard)
    header.worker, header.incarnation, header.seq, header.codec = worker, incarnation, seq, "float32"
    received = pb.Request.FromString(header.SerializeToString())
    payload = np.zeros(0 if received.nonfinite else 2, np.float32).data.cast("B")
    push, _ = decode_push(received, payload, Slice(start=0, stop=2, state=0))
    sent = dataclasses.asdict(info)
    base = sent.pop("base")[shard]
    assert push == Push(worker, incarnation, seq, base, nonfinite=not info.finite, **sent)
