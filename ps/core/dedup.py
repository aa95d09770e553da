"""What a shard remembers of the pushes of its members, so that a repeated one is answered and not applied again."""

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
        """Nobody is a member."""
        self._members: dict[int, _Member] = {}

    def __contains__(self, worker: int) -> bool:
        """Whether the worker is a member."""
        return worker in self._members

    def __iter__(self) -> Iterator[int]:
        """The numbers of the members."""
        return iter(self._members)

    def join(self, worker: int, incarnation: int) -> None:
        """Admits a worker's incarnation in place of an older one, of which nothing is known from here on."""
        self._members[worker] = _Member(incarnation)

    def leave(self, worker: int) -> bool:
        """Forgets a worker; returns whether it was a member."""
        return self._members.pop(worker, None) is not None

    def recorded(self, worker: int, incarnation: int, seq: int) -> Result | None:
        """The outcome of a push that arrived before; None if it is new.

        Raises:
            UnknownWorker: The worker is not a member, or this incarnation of it is not.
            InvalidRequest: The number is not one that may come now.
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
                f"worker {worker}; received {seq}. Number pushes upwards, and repeat only the last."
            )
        return result

    def get(self, worker: int, incarnation: int, seq: int) -> Result | None:
        """What is known of a push; None if it or its worker is forgotten."""
        member = self._members.get(worker)
        return member.results.get(seq) if member and member.incarnation == incarnation else None

    def arrived(self, push: Push) -> None:
        """A member's push that is new has arrived."""
        self._members[push.worker].last_seq = push.seq

    def remember(self, push: Push, result: Result) -> None:
        """Keeps the outcome of a push, if its worker is still a member."""
        member = self._members.get(push.worker)
        if member is None or member.incarnation != push.incarnation:
            return
        member.results[push.seq] = result
        if len(member.results) > REMEMBERED_OUTCOMES:
            member.results.popitem(last=False)
