"""Initialisations are counted anew with every generation, by the coordinator and by the shards alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import JobConflict
from downpour.ps.control_plane.shard_link import ShardLinks
from downpour.ps.coordinator.shard_table import ShardTable
from tests.support.pure.recorded_job import RecordedJob


def test_a_shard_voids_weights_for_a_coordinator_that_was_started_again() -> None:
    """The shard had counted more initialisations, and kept the weights of a worker that had died half way."""
    job, table = RecordedJob(record="off"), ShardTable(1)
    (shard,), (commands,) = job.hosts, job.commands
    commands.execute(pb.ShardCommand(initialisation=2))
    commands.execute(pb.ShardCommand(generation=2))
    job.initialise(0, job.flat)
    assert not shard.void
    commands.execute(pb.ShardCommand(initialisation=table.void(view=1)))
    assert shard.void


def test_a_table_counts_initialisations_anew_with_every_generation() -> None:
    table = ShardTable(1)
    assert [table.void(1), table.void(2)] == [1, 2]
    table.forget_weights()
    assert table.void(3) == 1


def test_a_shard_that_joins_late_learns_the_initialisations_of_this_generation_alone() -> None:
    async def standing(*sent: pb.ShardCommand) -> pb.ShardCommand:
        async def events() -> AsyncIterator[pb.ShardEvent]:
            yield pb.ShardEvent(joined=pb.ShardAddress(shard=1, address="127.0.0.1:1"))
            await asyncio.Event().wait()

        links = ShardLinks(lambda address: None, lambda shard, event: None, lambda shard: None)
        for command in sent:
            links.send(command)
        stream = links.serve(events())
        try:
            return await anext(aiter(stream))
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    voided, begun = pb.ShardCommand(initialisation=3), pb.ShardCommand(generation=2)
    assert asyncio.run(standing(begun, voided)).initialisation == 3
    assert asyncio.run(standing(voided, begun)).initialisation == 0


def test_a_worker_may_repeat_its_initial_weights_while_others_train() -> None:
    """Its connection broke before it had the reply; others had trained when it sent the weights again, and it ended."""
    job = RecordedJob(record="off")
    (shard,), weights = job.hosts, job.flat.data.cast("B")
    shard.void_weights(1)
    shard.initialise(weights, session=7)
    job.join(0)
    job.step()
    version = shard.trained_shard().version
    assert version == 1
    shard.initialise(weights, session=7)
    assert shard.trained_shard().version == version
    with pytest.raises(JobConflict, match="before the first update; version is 1"):
        shard.initialise(weights, session=8)
