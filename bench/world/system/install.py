"""Replaces the operating system of this Python process by a simulated world."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn, cast

import grpc

from downpour.bench.world.system.aio_channel import VirtualAioChannel
from downpour.bench.world.system.blocking_channel import VirtualChannel
from downpour.bench.world.system.event_loop import VirtualLoop
from downpour.bench.world.system.network import VirtualNetwork
from downpour.bench.world.system.paths import ProcessDisk, VirtualPath
from downpour.bench.world.system.process import VirtualProcess
from downpour.bench.world.system.scheduler import ProcessKilled, World
from downpour.bench.world.system.server_calls import VirtualServer
from downpour.bench.world.system.threads import VirtualEvent, VirtualExecutor, VirtualThread, result_of, virtual_lock
from downpour.protos import channel, logs
from downpour.protos.system import clock, disk, entropy, threads

TRACEBACK = "Traceback (most recent call last)"
EPOCH_S = 1_700_000_000.0  # the wall clock at virtual time 0


class WorldClock:
    """The clocks of the process that executes."""

    def __init__(self, world: World) -> None:
        """Show the times of a world."""
        self._world = world

    def monotonic(self) -> float:
        """Return the process's monotonic time."""
        running = self._world.running
        return running.monotonic() if running is not None else self._world.now

    perf_counter = monotonic

    def wall(self) -> float:
        """Return the seconds since 1970 on the process's machine."""
        running = self._world.running
        return EPOCH_S + self._world.now + (running.machine.wall_offset_s if running is not None else 0.0)


class WorldThreads:
    """The threads of the process that executes; see `downpour.protos.system.threads.Threads`."""

    def __init__(self, world: World) -> None:
        """Create the threads of a world."""
        self._world = world

    def start(self, target: Callable[[], None], name: str) -> VirtualThread:
        """Start a thread of the process that executes."""
        return VirtualThread(self._process, target, name)

    def event(self) -> VirtualEvent:
        """Return an event in virtual time."""
        return VirtualEvent()

    def lock(self) -> AbstractContextManager[Any]:
        """Return a lock among the threads of the world."""
        return virtual_lock()

    def executor(self, name: str) -> Any:
        """Return an executor whose threads are virtual."""
        return VirtualExecutor()

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """Return an event loop that executes only while a thread runs it."""
        return VirtualLoop(self._process, always_running=False)

    def tasks(self, loop: Any) -> set[asyncio.Task[Any]]:
        """Return the tasks of an event loop of the world that are not done."""
        return cast(VirtualLoop, loop).tasks()

    def result(self, future: Future[Any]) -> Any:
        """Wait for the result of a future."""
        return result_of(future)

    def exit_process(self, code: int) -> NoReturn:
        """End the process at once."""
        self._process.kill(code)
        raise ProcessKilled

    def process(self) -> tuple[str, int]:
        """Return the name of the machine and the number of the process."""
        return self._process.machine.name, self._process.number

    @property
    def _process(self) -> VirtualProcess:
        process = self._world.running
        assert process is not None, "threads belong to a process"
        process.check_alive()
        return process


class WorldNetwork:
    """The network of the process that executes; see `downpour.protos.channel.RpcNetwork`."""

    def __init__(self, world: World, network: VirtualNetwork) -> None:
        """Create the network of a world."""
        self._world, self._network = world, network

    def open_channel(self, address: str) -> grpc.Channel:
        """Open a channel of the virtual network for blocking calls."""
        assert self._world.running is not None
        return cast(grpc.Channel, VirtualChannel(self._network, self._world.running, address))

    def open_aio_channel(self, address: str) -> grpc.aio.Channel:
        """Open a channel for an event loop."""
        assert self._world.running is not None
        return cast(grpc.aio.Channel, VirtualAioChannel(self._network, self._world.running, address))

    def aio_server(self, interceptors: Any) -> grpc.aio.Server:
        """Return a server that listens on the virtual network."""
        assert self._world.running is not None
        return cast(grpc.aio.Server, VirtualServer(self._network, self._world.running, interceptors))

    def check_free(self, bind: str) -> None:
        """Raise OSError if another process listens at the address."""
        if bind in self._network.listeners:
            raise OSError(f"{bind} is in use")

    def difference_in_tls(self, address: str) -> str:
        """Return "": the virtual network has no TLS."""
        return ""


@contextmanager
def installed(world: World, network: VirtualNetwork, scratch: str) -> Iterator[None]:
    """Replace clocks, threads, disk, random numbers, network and logs within the block.

    Args:
        world: The world.
        network: Its network.
        scratch: A real folder for copies of files that libraries read themselves.
    """

    def write_log(line: str) -> None:
        if world.running is not None and world.running.alive:
            world.running.lines.append(line)
            world.note(line[9:])
            if TRACEBACK in line:
                last = line.rstrip().rpartition("\n")[2]
                world.problem(f"{world.running.name} logged an error that is not foreseen: {last}")

    VirtualPath.world, VirtualPath.scratch = world, scratch
    logs.redirect(write_log, lambda line: None)
    clock.use(WorldClock(world))
    threads.use(WorldThreads(world))
    disk.use(ProcessDisk(world))
    entropy.use(world.random.getrandbits)
    channel.use_network(WorldNetwork(world, network))
    try:
        yield
    finally:
        logs.restore()
        clock.use(clock.SystemClock())
        threads.use(threads.SystemThreads())
        disk.use(disk.SystemDisk())
        entropy.use(entropy.SYSTEM_BITS)
        channel.use_network(channel.SystemNetwork())
