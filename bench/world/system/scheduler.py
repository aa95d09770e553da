"""The seeded scheduler of a simulated world: events in virtual time, one at a time."""

from __future__ import annotations

import heapq
import random
import zlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from downpour.bench.world.system.process import VirtualProcess

KEPT_LINES = 400  # length of the journal, which the report of a failure contains


def exponential(source: random.Random, mean_s: float) -> float:
    """Return an exponentially distributed time, `mean_s` seconds in the mean, in whole nanoseconds.

    The last bit of a logarithm differs between machines; after the rounding, all have the same time.
    """
    return round(source.expovariate(1 / mean_s), 9)


class ProcessKilled(BaseException):
    """The process that runs this code has been killed; nothing may catch this except the simulator."""


class EventLimit(Exception):
    """The world has executed more events than a job may need."""


class World:
    """A scheduler of events in virtual time. One seed determines all random choices.

    Attributes:
        now: The virtual time in seconds.
        random: The source of all randomness of the schedule.
        running: The process whose event is being executed; None in events of the world itself.
        events: The number of events that have been executed.
        digest: A checksum of all events so far: equal runs have equal checksums.
        journal: The newest lines about faults, processes and their logs.
        problems: Violations that were found while events were executed.
    """

    def __init__(self, seed: int, keep_journal: bool = True) -> None:
        """Create a world in which nothing happens yet."""
        self.now = 0.0
        self.random = random.Random(f"schedule {seed}")
        self.running: VirtualProcess | None = None
        self.events, self.digest = 0, 0
        self.journal: deque[str] = deque(maxlen=KEPT_LINES if keep_journal else 0)
        self.problems: list[str] = []
        self._heap: list[tuple[float, float, int, VirtualProcess | None, Callable[..., None], tuple[Any, ...]]] = []
        self._pushed = self._processes = 0

    def at(self, time_s: float, process: VirtualProcess | None, call: Callable[..., None], *arguments: Any) -> None:
        """Execute a call at a time, unless its process has ended by then; equal times are ordered at random."""
        self._pushed += 1
        heapq.heappush(self._heap, (time_s, self.random.random(), self._pushed, process, call, arguments))

    def next_process(self) -> int:
        """Return the number of a new process."""
        self._processes += 1
        return self._processes

    def note(self, line: str) -> None:
        """Add a line to the journal and to the checksum of the run."""
        name = self.running.name if self.running is not None else "world"
        text = f"{self.now:12.6f} {name}: {line}"
        self.journal.append(text)
        self.digest = zlib.crc32(text.encode(), self.digest)

    def problem(self, text: str) -> None:
        """Record that a property which must hold was violated."""
        if text not in self.problems:
            self.note(f"PROBLEM {text}")
            self.problems.append(text)

    def run(
        self, done: Callable[[], bool], after_event: Callable[[VirtualProcess | None], None], most_events: int
    ) -> None:
        """Execute events until `done`, or until none is left.

        Args:
            done: Whether to stop; called before every event.
            after_event: A callback after every event, which receives the process that has executed it.
            most_events: The number of events after which the run is abandoned.

        Raises:
            EventLimit: `most_events` have been executed.
        """
        heap, pop, order = self._heap, heapq.heappop, 0
        while heap and not done():
            time_s, _, number, process, call, arguments = pop(heap)
            if process is not None and not process.receives(time_s, call, arguments):
                continue
            if time_s > self.now:
                self.now = time_s
            self.events += 1
            if self.events > most_events:
                raise EventLimit(f"the job has not ended after {most_events:,} events")
            order = hash((order, number, time_s))
            self.running = process
            try:
                call(*arguments)
            except ProcessKilled:
                pass  # the code of the process ends here, as after SIGKILL; other processes continue
            self.running = None
            after_event(process)
        self.digest = zlib.crc32(b"%d" % order, self.digest)
