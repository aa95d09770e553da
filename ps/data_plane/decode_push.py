"""Decodes the frame of a push into a `Push` and its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.codecs.codec import check_length, codec_named
from downpour.protos.layout import Slice
from downpour.ps.core.push import Push


def decode_push(
    header: pb.Request, payload: memoryview | Sequence[bytes], part: Slice
) -> tuple[Push, np.ndarray | ChunkedVector]:
    """Return a push and its gradient `float32[n + m]`; no elements if the header says that it is not finite.

    A float32 payload is not copied. `part` has the n trained elements that the push covers, and the m of the state.

    Raises:
        InvalidRequest: The payload is not a valid encoding of that number of elements.
    """
    push = Push(
        worker=header.worker, incarnation=header.incarnation, seq=header.seq, base_version=header.base_version,
        samples=header.samples, norm=header.norm, nonfinite=header.nonfinite, loss=header.loss, correct=header.correct,
        lease=header.lease, epoch=header.epoch, start=header.start, stop=header.stop, steps=max(1, header.steps),
        tensors=header.tensors, compute_s=header.compute_s, repeats=header.repeats,
    )  # fmt: skip
    if header.nonfinite:
        return push, np.zeros(0, np.float32)
    if not isinstance(payload, memoryview) and not part.size:
        payload = memoryview(b"".join(payload))
    if not isinstance(payload, memoryview):
        chunks = ChunkedVector(payload)
        if len(chunks) != part.size:
            check_length(b"".join(payload), 4 * part.size, part.size)
        return push, chunks
    if header.codec == "float32":
        check_length(payload, 4 * part.size, part.size)
        return push, np.frombuffer(payload, np.float32)
    gradient = np.empty(part.size, np.float32)
    split = len(payload) - 4 * part.state
    if part.trained or split:  # a codec encodes one element or more
        codec_named(header.codec).decode(payload[:split], gradient[: part.trained])
    gradient[part.trained :] = np.frombuffer(payload[split:], np.float32)
    return push, gradient


def limit_bytes(header: pb.Request, part: Slice | None) -> int:
    """Return the largest payload that a frame with such a header may have, at the shard that owns `part`."""
    if part is None or header.kind == pb.PULL:
        return 0
    if header.kind in (pb.INIT, pb.ASSIGN) or header.codec == "float32":
        return 4 * part.size
    return codec_named(header.codec).size_bytes(part.trained) + 4 * part.state
