"""The threads of the process, with their events, locks and executors, and its event loops."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, NoReturn, Protocol, TypeVar

Result = TypeVar("Result")


class Event(Protocol):
    """The part of the interface of `threading.Event` that downpour uses."""

    def is_set(self) -> bool:
        """Return whether the event has been set."""

    def set(self) -> None:
        """Set the event, which wakes all threads that wait for it."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, at most `timeout` seconds; return whether it is set."""


class Thread(Protocol):
    """The interface of a started thread."""

    def join(self) -> None:
        """Wait until the thread has ended."""


class Threads(Protocol):
    """The interface of the threads of a process."""

    def start(self, target: Callable[[], None], name: str) -> Thread:
        """Start a daemon thread that calls a function, and return it."""

    def event(self) -> Event:
        """Return an event that is not set."""

    def lock(self) -> AbstractContextManager[Any]:
        """Return a lock that no thread holds."""

    def executor(self, name: str) -> Executor:
        """Return an executor with one thread."""

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new event loop."""

    def tasks(self, loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
        """Return the tasks of an event loop that are not done."""

    def result(self, future: Future[Result]) -> Result:
        """Wait for the result of a future that another thread sets."""

    def exit_process(self, code: int) -> NoReturn:
        """End the process at once, with all of its threads."""

    def process(self) -> tuple[str, int]:
        """Return the name of the host and the id of the process."""


class SystemThreads:
    """The threads of the operating system."""

    def start(self, target: Callable[[], None], name: str) -> Thread:
        """Start a daemon thread that calls a function, and return it."""
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def event(self) -> Event:
        """Return an event that is not set."""
        return threading.Event()

    def lock(self) -> AbstractContextManager[Any]:
        """Return a lock that no thread holds."""
        return threading.Lock()

    def executor(self, name: str) -> Executor:
        """Return an executor with one thread."""
        return ThreadPoolExecutor(1, name)

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new event loop."""
        return asyncio.new_event_loop()

    def tasks(self, loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
        """Return the tasks of an event loop that are not done."""
        return asyncio.all_tasks(loop)

    def result(self, future: Future[Result]) -> Result:
        """Wait for the result of a future that another thread sets."""
        return future.result()

    def exit_process(self, code: int) -> NoReturn:
        """End the process at once, with all of its threads."""
        os._exit(code)

    def process(self) -> tuple[str, int]:
        """Return the name of the host and the id of the process."""
        return socket.gethostname(), os.getpid()


_threads: Threads = SystemThreads()


def use(threads: Threads) -> None:
    """Replace the threads of this process; those that run already are not affected."""
    global _threads
    _threads = threads


def start(target: Callable[[], None], name: str = "") -> Thread:
    """Start a daemon thread that calls a function, and return it."""
    return _threads.start(target, name)


def event() -> Event:
    """Return an event that is not set."""
    return _threads.event()


def lock() -> AbstractContextManager[Any]:
    """Return a lock that no thread holds."""
    return _threads.lock()


def executor(name: str) -> Executor:
    """Return an executor with one thread."""
    return _threads.executor(name)


def event_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop."""
    return _threads.event_loop()


def tasks(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    """Return the tasks of an event loop that are not done."""
    return _threads.tasks(loop)


def result(future: Future[Result]) -> Result:
    """Wait for the result of a future that another thread sets."""
    return _threads.result(future)


def exit_process(code: int) -> NoReturn:
    """End the process at once, with all of its threads."""
    _threads.exit_process(code)


def process() -> tuple[str, int]:
    """Return the name of the host and the id of the process."""
    return _threads.process()


def sleep(seconds: float) -> None:
    """Suspend the calling thread for a number of seconds."""
    _threads.event().wait(seconds)
