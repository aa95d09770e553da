"""A watcher receives every note, also one that is added while a message is sent to it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.control_plane.servicer import CoordinatorServicer
from downpour.ps.coordinator.job import JobNotes
from downpour.ps.coordinator.phase import Phase


def test_a_note_that_is_added_while_a_message_is_sent_is_in_the_next_one() -> None:
    job = SimpleNamespace(notes=JobNotes(["first"]), phase=Phase.TRAINING)

    async def at_once(condition: Any, timeout_s: float) -> bool:
        return True

    servicer: Any = CoordinatorServicer.__new__(CoordinatorServicer)
    servicer._job, servicer._change = job, SimpleNamespace(wait_until=at_once)
    servicer._report = SimpleNamespace(message=lambda now, notes_from: pb.Progress(notes=job.notes.since(notes_from)))

    async def received() -> list[list[str]]:
        messages = servicer.Watch(pb.WatchRequest(), None)
        first = await anext(messages)
        job.notes.append("resumed")  # the first message is still being sent
        second = await anext(messages)
        await messages.aclose()
        return [list(first.notes), list(second.notes)]

    assert asyncio.run(received()) == [["first"], ["resumed"]]
