"""The workers of a job: numbers, incarnations, sessions and when they expire."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import UnknownWorker


@dataclass
class Member:
    """A live worker."""

    worker: int
    incarnation: int
    session: int
    expires_at: float
    host: str = ""
    pid: int = 0
    warm: bool = False
    idle: bool = False  # waits for a task
    resting: bool = True  # has no data now: no worker waits for it
    evaluator: bool = False  # takes evaluation tasks only

    @property
    def state(self) -> str:
        """What the worker is doing, in a word."""
        if not self.warm:
            return "warming"
        return "idle" if self.idle else "busy"


class Membership:
    """Who is in. Every change has a number, and shards believe the newest view only.

    Attributes:
        number: Of the current view.
    """

    def __init__(self, session_s: float, new_session: Callable[[], int]) -> None:
        """Nobody is in.

        Args:
            session_s: A member that is silent for so long has died.
            new_session: Draws an unguessable number.
        """
        self.number = 0
        self._session_s = session_s
        self._new_session = new_session
        self._members: dict[int, Member] = {}
        self._incarnations: dict[int, int] = {}

    def __len__(self) -> int:
        """Live workers."""
        return len(self._members)

    @property
    def members(self) -> list[Member]:
        """Live workers by number."""
        return [self._members[worker] for worker in sorted(self._members)]

    @property
    def trainers(self) -> list[Member]:
        """Live workers that take data, by number."""
        return [member for member in self.members if not member.evaluator]

    def evaluator_free(self, busy: Container[int]) -> bool:
        """Whether a task is to be left for an evaluator not in `busy`, which asks for one or soon will."""
        return any(member.evaluator and member.warm and member.worker not in busy for member in self.members)

    def all_idle_but(self, busy: Container[int]) -> bool:
        """Whether every worker that takes part, but those in `busy`, waits for a task."""
        return all(member.idle or not member.warm or member.worker in busy for member in self.members)

    def join(self, wanted: int | None, host: str, pid: int, now: float, evaluator: bool = False) -> Member:
        """Admits a worker as a new incarnation; the caller has let a live holder of `wanted` leave."""
        worker = (
            wanted
            if wanted is not None
            else next(n for n in range(len(self._incarnations) + 1) if n not in self._incarnations)
        )
        incarnation = self._incarnations.get(worker, 0) + 1
        self._incarnations[worker] = incarnation
        expires_at = now + self._session_s
        member = Member(worker, incarnation, self._new_session(), expires_at, host, pid, evaluator=evaluator)
        self._members[worker] = member
        self.number += 1
        return member

    def leave(self, worker: int) -> Member | None:
        """Lets a worker go; None if it was not in."""
        member = self._members.pop(worker, None)
        if member is not None:
            self.number += 1
        return member

    def clear(self) -> None:
        """Lets everybody go."""
        self._members.clear()
        self.number += 1

    @property
    def incarnations(self) -> dict[int, int]:
        """The newest incarnation of every worker that ever was in."""
        return dict(self._incarnations)

    def remember(self, incarnations: Mapping[int, int]) -> None:
        """Numbers new incarnations after these."""
        for worker, incarnation in incarnations.items():
            self._incarnations[worker] = max(incarnation, self._incarnations.get(worker, 0))

    def get(self, worker: int) -> Member | None:
        """The live worker of that number."""
        return self._members.get(worker)

    def of_session(self, session: int) -> Member:
        """The live worker whose session it is.

        Raises:
            UnknownWorker: No live worker has it.
        """
        for member in self._members.values():
            if member.session == session:
                return member
        raise UnknownWorker(
            f"a session must be that of a live worker; received one that never was or has ended (live: {len(self)}). "
            "It expired or was taken over: register again."
        )

    def renew(self, member: Member, now: float) -> None:
        """Puts off the end of a session."""
        member.expires_at = now + self._session_s

    def doubt(self, worker: int, now: float, grace_s: float) -> None:
        """Expects a sign of life within `grace_s`: the worker's connection broke."""
        member = self._members.get(worker)
        if member is not None:
            member.expires_at = min(member.expires_at, now + grace_s)

    def expired(self, now: float) -> list[Member]:
        """Members whose sessions have run out."""
        return [member for member in self._members.values() if member.expires_at <= now]

    def view(self) -> pb.View:
        """The current view, for the shards."""
        members = [
            pb.Member(worker=m.worker, incarnation=m.incarnation, session=m.session, resting=m.resting)
            for m in self.members
        ]
        return pb.View(number=self.number, members=members)
