"""A model is published only when all of it has arrived, however the stream of its chunks ends."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError, InvalidRequest, TooLarge, UnknownWorker
from downpour.ps.control_plane.model_upload import receive_model
from downpour.ps.coordinator.phase import Phase
from tests.support.pure.pure_job import PureJob

CONTENT = bytes(range(256)) * 8


def finishing() -> tuple[PureJob, int]:
    """A job that waits for its model, and the session of its worker."""
    job = PureJob(workers=1)
    session = job.join()
    job.state.phase = Phase.FINISHING
    return job, session


def announcement(session: int, content: bytes = CONTENT) -> pb.UploadChunk:
    return pb.UploadChunk(session=session, size_bytes=len(content), sha256=hashlib.sha256(content).digest())


def upload(job: PureJob, path: Path, chunks: Sequence[pb.UploadChunk]) -> int:
    """Receives chunks; the stream then ends, as it does when the worker dies."""

    async def stream() -> AsyncIterator[pb.UploadChunk]:
        for chunk in chunks:
            yield chunk

    return asyncio.run(receive_model(job.coordinator, path, stream()))


def chunked(content: bytes, size: int = 100) -> list[pb.UploadChunk]:
    return [pb.UploadChunk(data=content[start : start + size]) for start in range(0, len(content), size)]


def test_a_complete_model_is_published(tmp_path: Path) -> None:
    job, session = finishing()
    path = tmp_path / "model.keras"
    assert upload(job, path, [announcement(session), *chunked(CONTENT)]) == len(CONTENT)
    assert path.read_bytes() == CONTENT and job.state.saved


@given(arrived=st.integers(0, len(CONTENT) - 1))
def test_a_stream_that_ends_early_publishes_nothing_and_keeps_the_earlier_model(
    tmp_path_factory: pytest.TempPathFactory, arrived: int
) -> None:
    job, session = finishing()
    path = tmp_path_factory.mktemp("run") / "model.keras"
    for earlier in (None, b"the earlier model"):
        if earlier is not None:
            path.write_bytes(earlier)
        with pytest.raises(InvalidRequest, match="must be the announced 2,048 bytes"):
            upload(job, path, [announcement(session), *chunked(CONTENT[:arrived])])
        assert not job.state.saved
        assert path.read_bytes() == earlier if earlier is not None else not path.exists()
        assert {entry.name for entry in path.parent.iterdir()} <= {path.name}


@given(place=st.integers(0, len(CONTENT) - 1), bit=st.integers(0, 7))
def test_a_changed_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    job, session = finishing()
    path = tmp_path_factory.mktemp("run") / "model.keras"
    changed = bytearray(CONTENT)
    changed[place] ^= 1 << bit
    with pytest.raises(InvalidRequest, match="SHA-256"):
        upload(job, path, [announcement(session), *chunked(bytes(changed))])
    assert not path.exists() and not job.state.saved


def test_an_invalid_upload_is_refused(tmp_path: Path) -> None:
    job, session = finishing()
    whole = announcement(session)
    too_large = pb.UploadChunk(session=session, size_bytes=1 << 40, sha256=whole.sha256)
    cases: list[tuple[list[pb.UploadChunk], type[DownpourError]]] = [
        ([], UnknownWorker),
        ([pb.UploadChunk(session=session + 1, size_bytes=1, sha256=whole.sha256)], UnknownWorker),
        ([pb.UploadChunk(session=session), *chunked(CONTENT)], InvalidRequest),
        ([pb.UploadChunk(session=session, size_bytes=4, sha256=b"short")], InvalidRequest),
        ([whole, *chunked(CONTENT), pb.UploadChunk(data=b"more")], InvalidRequest),
        ([too_large], TooLarge),
    ]
    for chunks, error in cases:
        with pytest.raises(error):
            upload(job, tmp_path / "model.keras", chunks)
    assert not list(tmp_path.iterdir()) and not job.state.saved


def test_a_model_is_taken_only_while_the_job_is_finishing(tmp_path: Path) -> None:
    job, session = finishing()
    job.state.phase = Phase.TRAINING
    with pytest.raises(InvalidRequest, match="while the job is finishing; the job is training"):
        upload(job, tmp_path / "model.keras", [announcement(session), *chunked(CONTENT)])
    assert not list(tmp_path.iterdir())
