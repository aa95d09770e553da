"""An asyncio event loop in virtual time. Each callback is one event of the world, in the order of asyncio."""

from __future__ import annotations

import asyncio
import sys
from asyncio.events import _set_running_loop
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from downpour.bench.world.system.scheduler import ProcessKilled
from downpour.bench.world.system.threads import VirtualThread, current_thread, run_in_thread

if TYPE_CHECKING:
    from downpour.bench.world.system.process import VirtualProcess


FEW_TASKS = 32
_Base: Any = asyncio.AbstractEventLoop  # of which only what the program uses is implemented


class VirtualLoop(_Base):
    """The event loop of a simulated process, or of one of its threads."""

    def __init__(self, process: VirtualProcess, always_running: bool) -> None:
        """Create an event loop that belongs to a virtual process.

        Args:
            process: The process that it belongs to.
            always_running: Whether callbacks are executed at any time; otherwise only while a thread runs the loop.
        """
        self.process, self._world = process, process.world
        self._runners = int(always_running)
        self._ready: deque[asyncio.Handle] = deque()
        self._scheduled = self._closed = False
        self._tasks: list[asyncio.Task[Any]] = []
        self._most_tasks = FEW_TASKS  # from which those that are done are removed
        self._forever: VirtualThread | None = None
        process.loops.append(self)

    # ------------------------------------------------------------------ callbacks

    def time(self) -> float:
        """Return the time of the process's monotonic clock."""
        return self.process.monotonic()

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> asyncio.Handle:
        """Execute a callback after those that are ready already."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        if not self._scheduled:
            self._schedule()
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        """Execute a callback after a delay in seconds."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        """Execute a callback at a time of this loop's clock."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._world.at(max(self.process.world_time(when), self._world.now), self.process, self._due, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Ignore the cancellation: the handle executes nothing when it becomes due."""

    def _due(self, handle: asyncio.TimerHandle) -> None:
        if not handle.cancelled():
            self._ready.append(handle)
            self._schedule()

    def _schedule(self) -> None:
        if self._ready and not self._scheduled and self._runners and self.process.alive:
            self._scheduled = True
            self._world.at(self._world.now, self.process, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        ready = self._ready
        if not ready or not self._runners:
            return
        handle = ready.popleft()
        if not handle._cancelled:
            _set_running_loop(self)
            sys.set_asyncgen_hooks(finalizer=self._finalize)
            try:
                handle._run()
            finally:
                _set_running_loop(None)
        if ready:
            self._schedule()

    def _finalize(self, generator: Any) -> None:
        if self.process.alive and not self._closed:
            self.call_soon(self.create_task, generator.aclose())

    # ------------------------------------------------------------------ tasks and futures

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        """Return a task of this loop that runs a coroutine."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        if len(self._tasks) >= self._most_tasks:  # instead of a callback of every task, which would be an event
            self._tasks = [each for each in self._tasks if not each.done()]
            self._most_tasks = 2 * len(self._tasks) + FEW_TASKS
        self._tasks.append(task)
        return task

    def tasks(self) -> set[asyncio.Task[Any]]:
        """Return the tasks that are not done."""
        return {task for task in self._tasks if not task.done()}

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Execute a function in a thread of the executor."""
        return run_in_thread(self, executor, lambda: func(*args))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report an exception that no code has handled as a violation."""
        error = context.get("exception")
        if self.process.alive and not isinstance(error, ProcessKilled):
            self._world.problem(f"{self.process.name}: {context.get('message')}: {error!r}")

    # ------------------------------------------------------------------ running in a thread

    def run_until_complete(self, future: Any) -> Any:
        """Run the loop in the calling thread until a future is done."""
        task = asyncio.ensure_future(future, loop=self)
        self._run_while(task)
        return task.result()

    def _run_while(self, task: asyncio.Future[Any]) -> None:
        thread = current_thread()
        self._runners += 1
        self._schedule()
        try:
            if not task.done():
                task.add_done_callback(lambda done: thread.wake())
            while not task.done():
                thread.block()
        finally:
            self._runners -= 1

    def run_forever(self) -> None:
        """Run the loop in the calling thread until `stop`."""
        self._runners += 1
        self._forever = current_thread()
        self._schedule()
        self._forever.block()
        self._runners -= 1
        self._forever = None

    def stop(self) -> None:
        """Make `run_forever` return, if it runs."""
        if self._forever is not None:
            self._forever.wake()

    def is_running(self) -> bool:
        """Return whether callbacks are executed."""
        return self._runners > 0

    def is_closed(self) -> bool:
        """Return whether the loop has been closed."""
        return self._closed

    def close(self) -> None:
        """Close the loop; callbacks that are waiting are discarded."""
        self._closed = True
        self._discard_ready()

    def _discard_ready(self) -> None:
        """Discard the callbacks that are waiting, and close the coroutines that other threads have submitted."""
        for handle in self._ready:
            for cell in getattr(handle._callback, "__closure__", None) or ():  # type: ignore[attr-defined]
                if asyncio.iscoroutine(cell.cell_contents):
                    cell.cell_contents.close()
        self._ready.clear()

    get_debug = bool  # which returns False: nothing is traced. Asyncio calls it for every future.

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        """Execute a callback when the process receives a signal."""

        def handle() -> None:
            self.call_soon(callback, *args)

        self.process.signal_handlers[int(sig)] = handle

    def abandon(self) -> None:
        """Discard all callbacks and close all coroutines, because the process has been killed."""
        self._discard_ready()
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine: Coroutine[Any, Any, Any] = task.get_coro()  # type: ignore[assignment]
            with suppress(BaseException):
                coroutine.close()
        self._tasks.clear()
