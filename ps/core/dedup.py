"""Deduplication of pushes: a duplicate receives the recorded outcome and is not applied again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from downpour.protos.errors import InvalidRequest, UnknownWorker
from downpour.ps.core.push import Push, Result

REMEMBERED_OUTCOMES = 64  # per worker: more than it can have in flight


@dataclass
class _Member:
    incarnation: int
    results: OrderedDict[int, Result] = field(default_factory=OrderedDict)
    last_seq: int = 0


class PushHistory:
    """The outcomes of each member's last pushes, by `(worker, incarnation, seq)`."""

    def __init__(self) -> None:
        """Create a history without members."""
        self._members: dict[int, _Member] = {}

    def __contains__(self, worker: int) -> bool:
        """Return whether the worker is a member."""
        return worker in self._members

    def __iter__(self) -> Iterator[int]:
        """Iterate over the ranks of the members."""
        return iter(self._members)

    def join(self, worker: int, incarnation: int) -> None:
        """Admit an incarnation of a worker, and forget its older one."""
        self._members[worker] = _Member(incarnation)

    def leave(self, worker: int) -> bool:
        """Forget a worker, and return whether it was a member."""
        return self._members.pop(worker, None) is not None

    def recorded(self, worker: int, incarnation: int, seq: int) -> Result | None:
        """Return the outcome of a push that arrived before; None if it is new.

        Raises:
            UnknownWorker: This incarnation of the worker is not a member.
            InvalidRequest: The sequence number is neither new nor that of a recent push.
        """
        member = self._members.get(worker)
        if member is None or member.incarnation != incarnation:
            living = "none" if member is None else str(member.incarnation)
            raise UnknownWorker(
                f"worker {worker} incarnation {incarnation} must be a member; the shard knows incarnation {living}. "
                "Its session has expired or was taken over: register again."
            )
        if seq < 1:
            raise InvalidRequest(f"seq must be 1 or more; received {seq}. Number pushes from 1.")
        if seq > member.last_seq:
            return None
        result = member.results.get(seq)
        if result is None:
            raise InvalidRequest(
                f"seq must be above {member.last_seq}, or one of the last {REMEMBERED_OUTCOMES} pushes that came from "
                f"worker {worker}; received {seq}. Number pushes in ascending order, and resend only the last ones."
            )
        return result

    def get(self, worker: int, incarnation: int, seq: int) -> Result | None:
        """Return the recorded outcome of a push, or None."""
        member = self._members.get(worker)
        return member.results.get(seq) if member and member.incarnation == incarnation else None

    def arrived(self, push: Push) -> None:
        """Record that a new push of a member has arrived."""
        self._members[push.worker].last_seq = push.seq

    def remember(self, push: Push, result: Result) -> None:
        """Record the outcome of a push, if its worker is still a member."""
        member = self._members.get(push.worker)
        if member is None or member.incarnation != push.incarnation:
            return
        member.results[push.seq] = result
        if len(member.results) > REMEMBERED_OUTCOMES:
            member.results.popitem(last=False)
