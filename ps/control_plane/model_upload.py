"""Receives the trained model from a worker and publishes it when it is complete.

The end of a stream does not say whether it was the intended end: a stream also ends when the worker dies, cancels the
call or exceeds its deadline. Therefore the first chunk announces the size and the SHA-256 digest of the file, and a
file that does not match them is discarded; an earlier file stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict, TooLarge
from downpour.protos.logs import reason_of
from downpour.protos.sentences.sentence import sentence
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.phase import Phase
from downpour.ps.storage.atomic_file import atomic_write

BYTES_PER_WEIGHT, BYTES_OF_METADATA = 16, 64 << 20  # limit for a saved model
DIGEST_BYTES = hashlib.sha256().digest_size


async def receive_model(coordinator: Coordinator, path: Path, chunks: AsyncIterator[pb.UploadChunk]) -> int:
    """Write an uploaded model to `path` and return its size in bytes.

    Raises:
        UnknownWorker: The upload does not come from a live worker.
        InvalidRequest: The job is not finishing, the announcement is missing, or the content does not match it.
        TooLarge: The upload is larger than a model of the job's layout can be.
        JobConflict: The file cannot be written, so that the job has failed.
    """
    announced = await anext(aiter(chunks), pb.UploadChunk())
    _check_sender(coordinator, announced.session)
    _check_announcement(coordinator, announced)
    try:
        with atomic_write(path, durable=True) as place, place.open("wb") as file:
            await _receive(coordinator, announced, chunks, file)
            file.flush()
        coordinator.job.mark_saved()
    except OSError as error:
        reason = sentence("model_not_written", reason=reason_of(error))
        coordinator.fail(reason)
        raise JobConflict(f"{reason}.") from error
    return announced.size_bytes


async def _receive(
    coordinator: Coordinator, announced: pb.UploadChunk, chunks: AsyncIterator[pb.UploadChunk], file: BinaryIO
) -> None:
    digest, size = hashlib.sha256(announced.data), len(announced.data)
    file.write(announced.data)
    async for chunk in chunks:
        _check_sender(coordinator, announced.session)
        size += len(chunk.data)
        if size > announced.size_bytes:
            break
        digest.update(chunk.data)
        file.write(chunk.data)
    if size != announced.size_bytes or digest.digest() != announced.sha256:
        raise InvalidRequest(
            f"an uploaded model must be the announced {announced.size_bytes:,} bytes with the announced SHA-256; "
            f"received {size:,} bytes, or another digest. The upload is discarded: upload the file again."
        )


def _check_sender(coordinator: Coordinator, session: int) -> None:
    coordinator.job.membership.of_session(session)
    if coordinator.job.phase != Phase.FINISHING:
        raise InvalidRequest(
            f"a model must be uploaded while the job is finishing; the job is {coordinator.job.phase}. "
            "Wait for the task that asks for it."
        )


def _check_announcement(coordinator: Coordinator, announced: pb.UploadChunk) -> None:
    layout = coordinator.job.layout
    limit_bytes = BYTES_PER_WEIGHT * (layout.size if layout else 0) + BYTES_OF_METADATA
    if announced.size_bytes > limit_bytes:
        raise TooLarge(
            f"an uploaded model must have at most {limit_bytes:,} bytes, by the size of the job's layout; "
            f"received the announcement of {announced.size_bytes:,}. Save only the model."
        )
    if not announced.size_bytes or len(announced.sha256) != DIGEST_BYTES:
        raise InvalidRequest(
            f"an upload must begin with the size of the file and its SHA-256 digest of {DIGEST_BYTES} bytes; received "
            f"a size of {announced.size_bytes:,} and a digest of {len(announced.sha256)} bytes."
        )
