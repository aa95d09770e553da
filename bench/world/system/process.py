"""A process of the simulated world, which can be stopped and killed with all of its threads and event loops."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from downpour.bench.world.system.scheduler import ProcessKilled, World

if TYPE_CHECKING:
    from downpour.bench.world.system.event_loop import VirtualLoop
    from downpour.bench.world.system.machine import Machine
    from downpour.bench.world.system.threads import VirtualThread

KILLED = -9


class VirtualProcess:
    """One process, from its start to its end.

    Attributes:
        name: The name of the process, such as `ps-0`.
        number: The process id, unique in the world.
        machine: The machine that it runs on.
        alive: Whether the process has neither ended nor been killed.
        code: The exit code; None while it runs, negative if it was killed.
        executed: The number of events that the process has executed.
        lines: The lines of its log.
        replies: The number of messages that have arrived from servers.
        lost_replies: The numbers of those messages that do not arrive, because the connection breaks just before.
    """

    def __init__(
        self, world: World, name: str, machine: Machine, offset_s: float, ended: Callable[[VirtualProcess], None]
    ) -> None:
        """Create a process that executes nothing yet.

        Args:
            world: The world.
            name: The name of the process.
            machine: The machine that it runs on.
            offset_s: The value of the monotonic clock at virtual time 0, in seconds.
            ended: A callback when the process has ended.
        """
        self.world, self.name, self.machine, self._offset_s, self._ended = world, name, machine, offset_s, ended
        self.number = world.next_process()
        self.alive, self.code = True, None
        self.executed = self._kill_at = self.replies = 0
        self.lost_replies: set[int] = set()
        self._loses_power = False
        self.lines: list[str] = []
        self.loops: list[VirtualLoop] = []
        self.threads: list[VirtualThread] = []
        self.on_end: list[Callable[[], None]] = []  # connections and locks, which end with the process
        self.signal_handlers: dict[int, Callable[[], None]] = {}
        # A Byzantine process alters its requests: those on streams, and those of calls, with the name of the method.
        self.alter: Callable[[bytes], bytes] = lambda message: message
        self.alter_call: Callable[[str, bytes], bytes] = lambda method, message: message
        self._stopped = False
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    code: int | None

    def monotonic(self) -> float:
        """Return the time of this process's monotonic clock."""
        return self.world.now + self._offset_s

    def world_time(self, monotonic_s: float) -> float:
        """Return the virtual time at which this process's monotonic clock shows a value."""
        return monotonic_s - self._offset_s

    def receives(self, time_s: float, call: Callable[..., None], arguments: tuple[Any, ...]) -> bool:
        """Return whether an event may be executed now; a stopped process stores it until `resume`."""
        if not self.alive:
            return False
        if self._stopped:
            self._held.append((call, arguments))
            return False
        self.executed += 1
        if self.executed == self._kill_at:
            self.world.now = max(self.world.now, time_s)
            self.kill()
            if self._loses_power:
                self.machine.disk.lose_power()
            return False
        return True

    def kill_before(self, event: int, loses_power: bool) -> None:
        """Plan that the process is killed before its event of this number, from 1, or its machine loses power."""
        self._kill_at, self._loses_power = event, loses_power

    def check_alive(self) -> None:
        """Raise ProcessKilled if the process has ended; called by everything through which it acts."""
        if not self.alive:
            raise ProcessKilled

    # ------------------------------------------------------------------ the end

    def kill(self, code: int = KILLED) -> None:
        """End the process at once, as SIGKILL does; threads and coroutines execute nothing more."""
        if not self.alive:
            return
        self.alive, self.code = False, code
        self.world.note(f"{self.name} ended with {code}")
        running, self.world.running = self.world.running, self
        for thread in self.threads:
            thread.unwind()
        for loop in self.loops:
            loop.abandon()
        for act in self.on_end:
            with suppress(ProcessKilled):
                act()
        self.world.running = running
        self._held.clear()
        self.world.at(self.world.now, None, self._ended, self)

    def stop(self) -> None:
        """Execute no events until `resume`, as SIGSTOP does."""
        self._stopped = True

    def resume(self) -> None:
        """Execute the events that have become due in the meantime, and later ones."""
        self._stopped = False
        held, self._held = self._held, []
        for position, (call, arguments) in enumerate(held):  # the offset keeps their order
            self.world.at(self.world.now + position * 1e-9, self, call, *arguments)

    def signal(self, number: int) -> None:
        """Send a signal for which the process may have a handler; without one, it ends."""
        handler = self.signal_handlers.get(number)
        if handler is not None:
            self.world.at(self.world.now, self, handler)
        else:
            self.kill(-number)
