"""A job as it describes itself to workers."""

from __future__ import annotations

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import PROTOCOL
from downpour.protos.frame import CHUNK_BYTES
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.fit_coordinator import ScriptCoordinator

HEARTBEAT_S = 1.0


def described(coordinator: Coordinator) -> pb.JobDescription:
    """What a worker must know of the job."""
    settings = coordinator.settings
    return pb.JobDescription(
        protocol=PROTOCOL,
        job=coordinator.job,
        model=settings.model,
        dataset=settings.dataset,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        validation_split=settings.validation_split,
        codec=settings.codec,
        transport=settings.transport,
        mode=settings.mode,
        heartbeat_s=HEARTBEAT_S,
        session_s=settings.session_s,
        nonfinite_limit=settings.nonfinite_limit,
        clip_norm=settings.clip_norm,
        workers=settings.workers,
        shards=settings.shards,
        learning_rate=settings.effective_learning_rate,
        push_every=settings.push_every,
        fetch_every=settings.fetch_every or settings.push_every,
        overlap=settings.overlap,
        phase=coordinator.phase,
        chunk_bytes=CHUNK_BYTES,
        script=isinstance(coordinator, ScriptCoordinator),
        reconnect_s=settings.reconnect_s,
    )
