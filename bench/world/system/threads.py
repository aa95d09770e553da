"""Threads of simulated processes. At most one executes at a time; the scheduler decides which and when.

Each is a greenlet: the scheduler switches to it within one thread of the operating system, which takes a fraction of
the time that two threads of the operating system need to wake each other.
"""

from __future__ import annotations

import traceback
from asyncio.events import _get_running_loop, _set_running_loop
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from downpour.bench.world.system.scheduler import ProcessKilled

if TYPE_CHECKING:
    from downpour.bench.world.system.event_loop import VirtualLoop
    from downpour.bench.world.system.process import VirtualProcess

_current: VirtualThread | None = None


class VirtualThread:
    """A thread of a simulated process, in which synchronous code runs and blocks in virtual time."""

    def __init__(self, process: VirtualProcess, target: Callable[[], None], name: str) -> None:
        """Start the thread at the present virtual time."""
        self.process, self._world, self._target, self.name = process, process.world, target, name
        self.done = False
        self._greenlet = greenlet(self.execute)
        self._token = 0
        self._interrupts: list[Callable[[], None]] = []
        self._joining: list[VirtualThread] = []
        process.threads.append(self)
        self._started = False
        self._world.at(self._world.now, process, self.switch_to)

    # ------------------------------------------------------------------ in the scheduler

    def switch_to(self) -> None:
        """Execute the thread until it blocks or ends."""
        global _current
        if self.done:
            return
        before, _current = _current, self
        running, self._world.running = self._world.running, self.process
        loop = _get_running_loop()  # of the callback that unwinds this thread; no loop runs in the thread itself
        _set_running_loop(None)
        self._started = True
        self._greenlet.parent = getcurrent()
        self._greenlet.switch()
        _set_running_loop(loop)
        _current = before
        self._world.running = running

    def _resume(self, token: int) -> None:
        if token == self._token:
            self.switch_to()

    def wake(self) -> None:
        """Make a blocked thread continue at the present virtual time."""
        self._world.at(self._world.now, self.process, self._resume, self._token)

    def interrupt(self, handler: Callable[[], None]) -> None:
        """Execute a signal handler in the thread, which may raise there, when it executes next."""
        self._interrupts.append(handler)
        self.wake()

    def unwind(self) -> None:
        """End this thread of a process that has been killed, unless this thread executes now."""
        if self is not _current and self._started:
            self.switch_to()
        self.done = self.done or not self._started

    def finish(self) -> None:
        """Execute the thread to its end without virtual delays."""
        while not self.done:
            self._token += 1
            self.switch_to()

    # ------------------------------------------------------------------ in the thread

    def execute(self) -> None:
        """Execute the function of the thread."""
        try:
            if self.process.alive:
                self._target()
        except ProcessKilled:
            pass  # the threads of a killed process end without a message
        except BaseException as error:  # noqa: BLE001 - an uncaught error of a thread is a violation
            where = "".join(traceback.format_exception(error)[-4:])
            self._world.problem(f"{self.process.name}: thread {self.name!r} died: {where}")
            if self.name == "main":
                self.process.kill(1)
            if isinstance(error, KeyboardInterrupt):
                raise
        self.done = True
        for thread in self._joining:
            thread.wake()

    def block(self, until_s: float | None = None) -> None:
        """Suspend the thread until `wake`, or until a virtual time.

        Raises:
            ProcessKilled: The process has been killed in the meantime.
        """
        self.process.check_alive()
        self._token += 1
        if until_s is not None:
            self._world.at(max(until_s, self._world.now), self.process, self._resume, self._token)
        assert self._greenlet.parent is not None
        self._greenlet.parent.switch()
        self._token += 1
        self.process.check_alive()
        while self._interrupts:
            self._interrupts.pop(0)()

    def join(self) -> None:
        """Suspend the calling thread until this one has ended."""
        waiting = current_thread()
        while not self.done:
            self._joining.append(waiting)
            waiting.block()


def current_thread() -> VirtualThread:
    """Return the simulated thread that executes."""
    assert _current is not None, "this code must run in a thread of a simulated process"
    return _current


def executing_thread() -> VirtualThread | None:
    """Return the simulated thread that executes; None in an event loop."""
    return _current


class VirtualEvent:
    """An event that threads wait for in virtual time."""

    def __init__(self) -> None:
        """Create an event that is not set."""
        self._set = False
        self._waiting: list[VirtualThread] = []

    def is_set(self) -> bool:
        """Return whether the event has been set."""
        return self._set

    def set(self) -> None:
        """Set the event and resume the threads that wait for it."""
        self._set = True
        for thread in self._waiting:
            thread.wake()
        self._waiting.clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, at most `timeout` seconds; return whether it is set."""
        thread = current_thread()
        until_s = None if timeout is None else thread.process.world.now + timeout
        thread.process.check_alive()
        while not self._set:
            self._waiting.append(thread)
            thread.block(until_s)
            if until_s is not None and thread.process.world.now >= until_s:
                break
        if thread in self._waiting:
            self._waiting.remove(thread)
        return self._set


class VirtualExecutor:
    """An executor with one thread per submitted function."""

    def __init__(self) -> None:
        """Create an executor without work."""
        self.threads: list[VirtualThread] = []

    def shutdown(self, wait: bool = True) -> None:
        """Execute all submitted functions to their ends."""
        for thread in self.threads:
            if thread.process.alive:
                thread.finish()


def run_in_thread(loop: VirtualLoop, executor: VirtualExecutor | None, call: Callable[[], Any]) -> Any:
    """Execute a function in a new thread; return a future of the loop for its result."""
    future = loop.create_future()

    def work() -> None:
        try:
            result, error = call(), None
        except Exception as failure:  # noqa: BLE001 - it is raised where the future is awaited
            result, error = None, failure
        loop.call_soon(settle, result, error)

    def settle(result: Any, error: Exception | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    thread = VirtualThread(loop.process, work, "executor")
    if executor is not None:
        executor.threads = [each for each in executor.threads if not each.done] + [thread]
    return future


def result_of(future: Future[Any]) -> Any:
    """Wait in virtual time for the result of a future that another thread sets."""
    thread = current_thread()
    if not future.done():
        future.add_done_callback(lambda done: thread.wake())
    while not future.done():
        thread.block()
    return future.result()


def virtual_lock() -> AbstractContextManager[Any]:
    """Return a lock that does nothing, because a virtual thread never blocks while it holds one."""
    return nullcontext()
