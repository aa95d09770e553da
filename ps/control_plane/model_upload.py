"""Receives the trained model from a worker; the file appears when it is complete."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict, TooLarge
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.phase import Phase
from downpour.ps.storage.atomic_file import atomic_write

BYTES_PER_WEIGHT, BYTES_OF_METADATA = 16, 64 << 20  # the largest that a saved model may have


async def receive_model(coordinator: Coordinator, path: Path, chunks: AsyncIterator[pb.UploadChunk]) -> int:
    """Write an uploaded model to `path` and return its size in bytes.

    Raises:
        UnknownWorker: The upload does not come from a live worker.
        InvalidRequest: The job is not finishing, or the upload is empty.
        TooLarge: The upload is larger than a model of the job's layout can be.
        JobConflict: The file cannot be written; the job has failed with that.
    """
    session, size = 0, 0
    layout = coordinator.job.layout
    limit_bytes = BYTES_PER_WEIGHT * (layout.size if layout else 0) + BYTES_OF_METADATA
    try:
        with atomic_write(path) as place, place.open("wb") as file:
            async for chunk in chunks:
                session = session or chunk.session
                coordinator.job.membership.of_session(session)
                if coordinator.job.phase != Phase.FINISHING:
                    raise InvalidRequest(f"a model is taken when the job is finishing; it is {coordinator.job.phase}.")
                size += len(chunk.data)
                if size > limit_bytes:
                    raise TooLarge(
                        f"an uploaded model must have at most {limit_bytes:,} bytes, "
                        "by the size of the job's layout; received more."
                    )
                file.write(chunk.data)
            if not size:
                raise InvalidRequest("an uploaded model must have content; received none.")
        coordinator.job.saved = True
    except OSError as error:
        reason = f"the trained model cannot be written: {error}; make room, and resume the job"
        coordinator.fail(reason)
        raise JobConflict(f"{reason}.") from error
    return size
