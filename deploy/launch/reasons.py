"""The reasons for which workers end, of which the screen shows each once."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Container

KEPT = 200  # reasons; more of a long job would not be remembered by its reader either
COMPARED = 400  # characters of a reason: the coordinator keeps 500 of it
GAVE_UP = re.compile(r"worker (\d+) gave up(?:: (.*)| for the same reason)", re.DOTALL)
OWN = re.compile(r"downpour(?: worker)?: ")  # before a worker's own message
AGAIN = "for the same reason"


class Reasons:
    """Removes from messages about workers what an earlier message has said.

    A worker that fails reports its reason to the coordinator, prints it and ends. The launcher learns of both, in any
    order, and other workers usually fail for the same reason.
    """

    def __init__(self, visible: Container[int] = ()) -> None:
        """Build the record of a job whose screen has shown nothing.

        Args:
            visible: The numbers of the workers whose output the screen shows. Each error of a script is among it, also
                that of another worker, because an error of any worker is raised on all of them.
        """
        self._visible = visible
        self._known: deque[str] = deque(maxlen=KEPT)
        self._reported: set[int] = set()  # the numbers of the workers of whose end the screen shows the reason

    def has(self, reason: str) -> bool:
        """Return whether the screen shows a reason."""
        return any(_equal(without_prefix(reason), known) for known in self._known)

    def in_note(self, note: str) -> str:
        """Return what to show of a note of the coordinator; empty if it is known."""
        found = GAVE_UP.fullmatch(note)
        if found is None:
            self._known.append(note)
            return note
        worker, reason = int(found[1]), found[2]
        if self._visible:
            if worker in self._visible and reason is not None:
                self._known.append(reason)
            return ""
        return self.at_end(worker, f"worker {worker} gave up", reason, f"worker {worker} gave up {AGAIN}")

    def at_end(self, worker: int, event: str, reason: str | None, again: str) -> str:
        """Return the message that a worker has ended: `EVENT: REASON`, or `again`; empty if that is known.

        Args:
            worker: The number of the worker.
            event: How it has ended.
            reason: Its reason; None for that of another worker.
            again: The message for a reason that is known.
        """
        first = worker not in self._reported
        self._reported.add(worker)
        if reason is not None and not self.has(reason):
            return self._added(event, reason)
        return again if first else ""

    def at_restart(self, worker: int, event: str, reason: str) -> str:
        """Return the beginning of the message that a worker is restarted: `EVENT: REASON`, or that it is the same."""
        self._reported.add(worker)
        return f"{event} {AGAIN}" if self.has(reason) else self._added(event, reason)

    def _added(self, event: str, reason: str) -> str:
        self._known.append(without_prefix(reason))
        return f"{event}: {without_prefix(reason)}"


def without_prefix(reason: str) -> str:
    """Return the message of a worker without the name of the program that precedes it."""
    return OWN.sub("", reason, count=1) if OWN.match(reason) else reason


def _equal(one: str, other: str) -> bool:
    """Return whether two texts state one reason: one may be the last line of the other, or its text."""
    short, long = sorted((one.strip(), other.strip()), key=len)
    if not short or len(short) >= COMPARED:
        return short[:COMPARED] == long[:COMPARED] and bool(short)
    return long == short or long.endswith((f": {short}", f"\n{short}"))
