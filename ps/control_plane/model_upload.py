"""Takes the trained model from a worker; the file appears when it is whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict, TooLarge
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.phase import Phase
from downpour.ps.storage.atomic_file import atomic_write


async def take_model(coordinator: Coordinator, path: Path, chunks: AsyncIterator[pb.UploadChunk]) -> int:
    """Writes what comes to `path`; returns its bytes.

    Raises:
        UnknownWorker: It comes from no live worker.
        InvalidRequest: The job is not finishing, or nothing came.
        TooLarge: It is more than the job's layout explains.
        JobConflict: It cannot be written; the job has failed with that.
    """
    session, size = 0, 0
    try:
        with atomic_write(path) as place, place.open("wb") as file:
            async for chunk in chunks:
                session = session or chunk.session
                coordinator.membership.of_session(session)
                if coordinator.phase != Phase.FINISHING:
                    raise InvalidRequest(f"a model is taken when the job is finishing; it is {coordinator.phase}.")
                size += len(chunk.data)
                if size > coordinator.upload_limit_bytes:
                    raise TooLarge(
                        f"an uploaded model must have at most {coordinator.upload_limit_bytes:,} bytes, "
                        "by the size of the job's layout; received more."
                    )
                file.write(chunk.data)
            if not size:
                raise InvalidRequest("an uploaded model must have content; received none.")
        coordinator.saved = True
    except OSError as error:
        reason = f"the trained model cannot be written: {error}; make room, and resume the job"
        coordinator.fail(reason)
        raise JobConflict(f"{reason}.") from error
    return size
