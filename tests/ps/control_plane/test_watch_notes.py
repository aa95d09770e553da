"""A watcher receives every note and event, also one that is added while a message is sent to it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.control_plane.servicer import CoordinatorServicer
from downpour.ps.coordinator.job import JobEvents, JobNotes
from downpour.ps.coordinator.phase import Phase


def test_a_note_that_is_added_while_a_message_is_sent_is_in_the_next_one() -> None:
    job = SimpleNamespace(notes=JobNotes(["first"]), events=JobEvents(), phase=Phase.TRAINING)

    async def at_once(condition: Any, timeout_s: float) -> bool:
        return True

    servicer: Any = CoordinatorServicer.__new__(CoordinatorServicer)
    servicer._job, servicer._change = job, SimpleNamespace(wait_until=at_once)
    servicer._report = SimpleNamespace(
        message=lambda now, notes_from, events_from: pb.Progress(
            notes=job.notes.since(notes_from), events=job.events.since(events_from)
        )
    )

    async def received() -> list[tuple[list[str], list[str]]]:
        messages = servicer.Watch(pb.WatchRequest(), None)
        first = await anext(messages)
        job.notes.append("resumed")  # the first message is still being sent
        job.events.append(pb.JobEvent(kind="continued"))
        second = await anext(messages)
        await messages.aclose()
        return [(list(each.notes), [event.kind for event in each.events]) for each in (first, second)]

    assert asyncio.run(received()) == [(["first"], []), (["resumed"], ["continued"])]
