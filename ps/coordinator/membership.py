"""The workers of a job: their numbers, incarnations and sessions, and when these expire.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import UnknownWorker


@dataclass
class Member:
    """A worker whose session is valid.

    Attributes:
        worker: The number of the worker.
        incarnation: The number of processes that have had this worker number, this one included.
        session: The unguessable number that identifies the worker's requests.
        expires_at: The time at which the session expires unless it is renewed.
        host: The name of the worker's host.
        pid: The worker's process id.
        warm: Whether the worker has compiled its gradient, so that it can train.
        idle: Whether the worker waits for a task.
        resting: Whether the worker has no data now, so that no other worker must wait for it.
        evaluator: Whether the worker takes evaluation tasks only.
        last_report: The kind and the epoch of the last task whose result the worker has reported.
        polls: The number of times that the worker has asked for a task.
    """

    worker: int
    incarnation: int
    session: int
    expires_at: float
    host: str = ""
    pid: int = 0
    warm: bool = False
    idle: bool = False
    resting: bool = True
    evaluator: bool = False
    last_report: tuple[int, int] | None = None
    polls: int = 0

    @property
    def state(self) -> str:
        """Return what the worker is doing: `warming`, `idle` or `busy`."""
        if not self.warm:
            return "warming"
        return "idle" if self.idle or (self.resting and not self.evaluator) else "busy"


class Membership:
    """The live workers. Every change of them makes a new view, which has a number; shards adopt the newest one only.

    Attributes:
        number: The number of the current view.
    """

    def __init__(self, session_s: float, new_session: Callable[[], int]) -> None:
        """Create a membership without workers.

        Args:
            session_s: The seconds without a heartbeat or request after which a session expires.
            new_session: A function that returns an unguessable number for each new session.
        """
        self.number = 0
        self._session_s = session_s
        self._new_session = new_session
        self._members: dict[int, Member] = {}
        self._incarnations: dict[int, int] = {}

    def __len__(self) -> int:
        """Return the number of live workers."""
        return len(self._members)

    @property
    def members(self) -> list[Member]:
        """Return the live workers, ordered by number."""
        return [self._members[worker] for worker in sorted(self._members)]

    @property
    def trainers(self) -> list[Member]:
        """Return the live workers that train, ordered by number."""
        return [member for member in self.members if not member.evaluator]

    def evaluator_free(self, busy: Container[int]) -> bool:
        """Return whether some evaluator outside `busy` is free for a task."""
        return any(member.evaluator and member.warm and member.worker not in busy for member in self.members)

    def all_idle_but(self, busy: Container[int]) -> bool:
        """Return whether every worker that is warm, except those in `busy`, waits for a task."""
        return all(member.idle or not member.warm or member.worker in busy for member in self.members)

    def join(self, wanted: int | None, host: str, pid: int, now: float, evaluator: bool = False) -> Member:
        """Add a worker as a new incarnation; no live worker may have the number `wanted`."""
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
        """Remove and return a worker; None if it is not live."""
        member = self._members.pop(worker, None)
        if member is not None:
            self.number += 1
        return member

    def clear(self) -> None:
        """Remove all live workers and end their sessions; their incarnation numbers remain known."""
        self._members.clear()
        self.number += 1

    @property
    def incarnations(self) -> dict[int, int]:
        """Return the newest incarnation of every number that a worker ever had."""
        return dict(self._incarnations)

    def remember(self, incarnations: Mapping[int, int]) -> None:
        """Continue the numbering of incarnations after these."""
        for worker, incarnation in incarnations.items():
            self._incarnations[worker] = max(incarnation, self._incarnations.get(worker, 0))

    def get(self, worker: int) -> Member | None:
        """Return the live worker of that number; None if there is none."""
        return self._members.get(worker)

    def of_session(self, session: int) -> Member:
        """Return the live worker that has a session.

        Raises:
            UnknownWorker: No live worker has the session.
        """
        for member in self._members.values():
            if member.session == session:
                return member
        raise UnknownWorker(
            f"a session must be that of a live worker; received one that never was or has ended (live: {len(self)}). "
            "It expired or was taken over: register again."
        )

    def renew(self, member: Member, now: float) -> None:
        """Extend the session of a member by the session time-out."""
        member.expires_at = now + self._session_s

    def shorten(self, worker: int, now: float, grace_s: float) -> None:
        """Let a worker's session expire after at most `grace_s` seconds unless it is renewed."""
        member = self._members.get(worker)
        if member is not None:
            member.expires_at = min(member.expires_at, now + grace_s)

    def expired(self, now: float) -> list[Member]:
        """Return the members whose sessions have expired."""
        return [member for member in self._members.values() if member.expires_at <= now]

    def view(self) -> pb.View:
        """Return the current view as a message for the shards."""
        members = [
            pb.Member(worker=m.worker, incarnation=m.incarnation, session=m.session, resting=m.resting)
            for m in self.members
        ]
        return pb.View(number=self.number, members=members)
