"""Converts the coordinator's Watch stream of a running job to events for the page.

Each viewer has a separate stream, which begins when a page is opened and ends when it is closed. Nothing is sent while
no page is open, and a slow viewer does not delay others: flow control stops its stream, and the coordinator skips
records.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from downpour.deploy.dashboard.columns import FASTEST, pack
from downpour.deploy.dashboard.page_data import FORMAT, clock_offset, mode_facts, shard_columns
from downpour.deploy.view.rendering import as_dict
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import call_metadata, open_aio_channel
from downpour.protos.errors import str_or_sentence
from downpour.protos.parameter_server_pb2_grpc import CoordinatorStub
from downpour.protos.sentences.sentence import sentence, to_json
from downpour.protos.status_codes import error_of
from downpour.ps.trace.format import DTYPE

EVERY_S = 0.4  # between two messages; with the time between two reports of a shard less than the lag of the page
SELDOM_S = 30.0  # if only the end of the job matters, which is sent at once
RETRY_S = 0.5
GONE_S = 60.0  # a coordinator that is unreachable for this long is not being restarted
OVER = ("ended", "failed")

MOST_WAITING = 4096  # records of a shard that are kept until its clock is known
Records = NDArray[np.void]
Event = tuple[str, dict[str, Any]]  # name and data of a server-sent event


def live_block() -> bytes:
    """Return the block that makes the page follow a running job."""
    return pack({"format": FORMAT, "kind": "live"}, {})


class MessageBuilder:
    """Turns the progress messages of one stream into data for the page.

    The records of another shard are kept here until the offset of its clock from shard 0's is known, which requires a
    push that both have recorded.
    """

    def __init__(self) -> None:
        """Build a builder that does not know the shards' clocks yet."""
        self._origin_s: float | None = None
        self._ahead_s: dict[int, float] = {0: 0.0}
        self._recent = np.empty(0, DTYPE)  # of shard 0
        self._waiting: dict[int, Records] = {}

    def build(self, progress: pb.Progress) -> dict[str, Any]:
        """Return `{progress, block, skipped, mode}`.

        `block` is base64, or None if the message has no records; `mode` has the facts about the mode of the job.
        """
        traces: dict[int, Records] = {part.shard: np.frombuffer(part.records, DTYPE) for part in progress.records}
        skipped = progress.skipped_bytes // DTYPE.itemsize
        progress.ClearField("records")
        block, mode = self._block(traces, progress.elapsed_s), mode_facts(progress.mode)
        shown = as_dict(progress)
        shown["notes"] = shown.pop("sentences") or shown["notes"]  # a server of an earlier version sends no sentences
        return {"progress": shown, "block": block, "skipped": skipped, "mode": mode}

    def _block(self, traces: dict[int, Records], elapsed_s: float) -> str | None:
        if 0 in traces:
            self._recent = np.concatenate((self._recent, traces[0]))[-MOST_WAITING:]
            if self._origin_s is None:
                self._origin_s = float(traces[0]["time_s"][-1]) - elapsed_s
        if self._origin_s is None:
            return None
        tables = {}
        for shard in sorted({*traces, *self._waiting}):
            trace = self._known(shard, traces.get(shard, np.empty(0, DTYPE)))
            if len(trace):
                tables[f"shard{shard}"] = shard_columns(shard, trace, self._origin_s + self._ahead_s[shard])
        return base64.b64encode(pack({}, tables, FASTEST)).decode() if tables else None

    def _known(self, shard: int, fresh: Records) -> Records:
        """Return the records of a shard that can be sent now: all, or none while its clock is unknown."""
        if shard in self._ahead_s:
            return fresh
        waiting = np.concatenate((self._waiting.get(shard, np.empty(0, DTYPE)), fresh))[-MOST_WAITING:]
        ahead = clock_offset(self._recent, waiting)
        if ahead is None:
            self._waiting[shard] = waiting
            return np.empty(0, DTYPE)
        self._ahead_s[shard] = ahead
        self._waiting.pop(shard, None)
        return waiting


async def follow(address: str) -> AsyncGenerator[Event]:
    """Yield events about the job whose coordinator listens at `address`, until it is over or unreachable for `GONE_S`.

    The names are `progress`, with the result of `MessageBuilder.build`; `trouble`, with a reason, while the
    coordinator does not reply; and `over` at the end.
    """
    answered_s = time.monotonic()
    async with open_aio_channel(address) as channel:
        while time.monotonic() < answered_s + GONE_S:
            builder = MessageBuilder()
            request = pb.WatchRequest(every_s=EVERY_S, records=True)
            try:
                async for progress in CoordinatorStub(channel).Watch(request, metadata=call_metadata(address)):
                    answered_s = time.monotonic()
                    yield "progress", builder.build(progress)
                    if progress.phase in OVER:
                        yield "over", {}
                        return
                reason: str = sentence("stream_ended", address=address)
            except grpc.aio.AioRpcError as failure:
                reason = str_or_sentence(error_of(failure, address).args[0])
            yield "trouble", {"reason": to_json(reason)}
            await asyncio.sleep(RETRY_S)
    yield "over", {}


async def until_over(address: str) -> None:
    """Return once the job whose coordinator listens at `address` is over, or unreachable for `GONE_S`."""
    answered_s = time.monotonic()
    async with open_aio_channel(address) as channel:
        while time.monotonic() < answered_s + GONE_S:
            with suppress(grpc.aio.AioRpcError):  # the server may be restarting; the stream is opened again
                request = pb.WatchRequest(every_s=SELDOM_S)
                async for progress in CoordinatorStub(channel).Watch(request, metadata=call_metadata(address)):
                    answered_s = time.monotonic()
                    if progress.phase in OVER:
                        return
            await asyncio.sleep(RETRY_S)
