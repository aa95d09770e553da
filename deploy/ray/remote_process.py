"""The driver's side of the processes on a Ray cluster: placement, state and logs of each."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from downpour.deploy.launch.plan import ProcessSpec
from downpour.deploy.launch.processes import Process
from downpour.deploy.ray.node_process import NodeProcess, ProcessState, StartRequest
from downpour.protos.sentences.sentence import counted

POLL_S = 0.2
CLOSE_S = 10.0
LONG_S = 20.0
INHERITED = ("DOWNPOUR_", "TF_", "XLA_", "KERAS_")  # variables of the driver that its processes receive
LOST = -int(signal.SIGKILL)


@dataclass(frozen=True)
class Resources:
    """The resources of the processes of a job, and how they are placed.

    Attributes:
        base: The names of the processes that are placed together before the job starts.
        worker: The resources of a worker, by Ray's names.
        strategy: Ray's strategy of placement, such as PACK or SPREAD.
        server: The resources of a server.
    """

    base: Sequence[str]
    worker: Mapping[str, float]
    strategy: str = "PACK"
    server: Mapping[str, float] = field(default_factory=lambda: {"CPU": 1.0})

    def of(self, name: str) -> dict[str, float]:
        """Return the resources of a process by its name."""
        return dict(self.server if name.startswith("ps-") else self.worker)


class RemoteProcess(Process):
    """A process on a node; its output is appended to a log of the driver. See `Process`."""

    def __init__(self, spec: ProcessSpec, log: Path, actor: Any, first: Any) -> None:
        """Follow a process that an actor starts as soon as it is placed.

        Args:
            spec: The process of the plan.
            log: The path of the log on the driver.
            actor: The handle of the actor.
            first: The reference to the result of the actor's call of `start`.
        """
        self.spec, self.log, self.no_log = spec, log, ""
        self.actor, self.pending = actor, first
        self.pid, self.node = 0, ""
        self._code: int | None = None
        self._why, self._asked_s = "", time.monotonic()
        log.touch()
        self._begin = log.stat().st_size

    @property
    def code(self) -> int | None:
        """The exit status, negative for a signal; None while the process runs or waits for a node."""
        return self._code

    @property
    def is_placed(self) -> bool:
        """Whether it has been started on a node."""
        return bool(self.node)

    @property
    def waits_long(self) -> bool:
        """Whether it has waited for a node for longer than the start of an actor takes."""
        return time.monotonic() - self._asked_s > LONG_S

    def ending(self) -> str:
        """Return how the process ended, as a phrase for a message."""
        return self._why or super().ending()

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process still runs; one that waits for a node is given up."""
        if self._code is not None:
            return
        if self.is_placed:
            self.actor.send.remote(int(number))
        else:
            self._code = -int(number)

    def received(self, state: ProcessState) -> None:
        """Take over a state that the actor has reported."""
        self.pid, self.node = state.pid, state.node
        if state.output:
            with self.log.open("ab") as log:
                log.write(state.output)
        self._code = state.code

    def lost(self, why: str) -> None:
        """Record that the actor has ended with its process."""
        if self._code is None:
            self._code, self._why = LOST, why


class RayStarter:
    """Starts processes as actors in placement groups, and follows them in a thread of its own."""

    def __init__(self, resources: Resources, access: Mapping[str, bytes], shared: Path) -> None:
        """Create a starter; the first process reserves the resources.

        Args:
            resources: The resources of the processes.
            access: The files with the credentials of the job, by name.
            shared: The run directory.
        """
        self._resources, self._access, self._shared = resources, access, shared
        self._groups: dict[str, Any] = {}  # of a worker beyond the base
        self._base: Any = None
        self._current: dict[str, RemoteProcess] = {}
        self._lock = threading.Lock()  # guards _current
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="ray-processes", daemon=True)

    def reserve(self, timeout_s: float) -> None:
        """Reserve the resources of the base, and start to follow processes.

        Raises:
            TimeoutError: The cluster does not have them within `timeout_s`.
        """
        import ray

        bundles = [self._resources.of(name) for name in self._resources.base]
        self._base = ray.util.placement_group(bundles, strategy=self._resources.strategy)
        if not self._base.wait(timeout_s):
            there = {name: round(count) for name, count in ray.available_resources().items() if name in ("CPU", "GPU")}
            ray.util.remove_placement_group(self._base)
            raise TimeoutError(
                f"the cluster must have room for {counted(len(bundles), 'process', 'processes')} within "
                f"{timeout_s:.0f} s, {bundles}; "
                f"available are {there}. Use fewer --workers or --shards, or add nodes"
            )
        self._thread.start()

    def place_more(self, names: Sequence[str], wait_s: float) -> list[str]:
        """Reserve resources for more workers, and return the names of those that have a node within `wait_s`."""
        deadline = time.monotonic() + wait_s
        for name in names:
            self._group(name)
        return [name for name in names if self._groups[name].wait(max(0.01, deadline - time.monotonic()))]

    def give_up(self, names: Sequence[str]) -> None:
        """Release what was reserved for some workers."""
        import ray

        for name in names:
            if name in self._groups:
                ray.util.remove_placement_group(self._groups.pop(name))

    def lacks_room(self) -> bool:
        """Return whether a node of the base was lost, and no node has the resources that it had."""
        import ray

        return bool(ray.util.placement_group_table(self._base)["state"] == "RESCHEDULING")

    def placed_beyond_base(self) -> list[str]:
        """Return the names of the processes on nodes that are not part of the base."""
        placed = [name for name, process in self._current.items() if process.is_placed and process.code is None]
        return [name for name in placed if name in self._groups]

    def start(self, spec: ProcessSpec, addresses: Mapping[str, str], logs: Path) -> RemoteProcess:
        """Start a process, in place of an earlier one of the same name."""
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        earlier = self._current.get(spec.name)
        if earlier is not None:
            ray.kill(earlier.actor)
        base = self._resources.base
        group, index = (self._base, base.index(spec.name)) if spec.name in base else (self._group(spec.name), 0)
        needs = self._resources.of(spec.name)
        actor = (
            ray.remote(NodeProcess)
            .options(
                num_cpus=needs.get("CPU", 0),
                num_gpus=needs.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
            )
            .remote("", "")
        )
        request = StartRequest(
            spec,
            {name: addresses[name] for name in spec.needs},
            {name: value for name, value in os.environ.items() if name.startswith(INHERITED)
             and name not in spec.set_by_flags},
            self._access,
            str(self._shared) if spec.role == "ps" else None,
            earlier.node if earlier is not None else "",
        )  # fmt: skip
        process = RemoteProcess(spec, logs / f"{spec.name}.log", actor, actor.start.remote(request))
        with self._lock:
            self._current[spec.name] = process
        return process

    def close(self) -> None:
        """End all processes and release all resources."""
        import ray

        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()
        actors = [process.actor for process in self._current.values() if process.is_placed]
        if actors:
            ray.wait([actor.close.remote() for actor in actors], num_returns=len(actors), timeout=CLOSE_S)
        for process in self._current.values():
            ray.kill(process.actor)
        for group in (*self._groups.values(), *([self._base] if self._base is not None else [])):
            ray.util.remove_placement_group(group)

    # ------------------------------------------------------------------------------------------

    def _group(self, name: str) -> Any:
        import ray

        if name not in self._groups:
            self._groups[name] = ray.util.placement_group([self._resources.of(name)])
        return self._groups[name]

    def _follow(self) -> None:
        """Ask every actor for the state of its process, again and again."""
        import ray

        while not self._closed.wait(POLL_S / 2):
            with self._lock:
                running = [process for process in self._current.values() if process.code is None]
            by_reference = {process.pending: process for process in running}
            if not by_reference:
                continue
            ready, _ = ray.wait(list(by_reference), num_returns=len(by_reference), timeout=POLL_S / 2)
            for reference in ready:
                process = by_reference[reference]
                try:
                    process.received(ray.get(reference))
                except ray.exceptions.RayActorError:
                    process.lost("was lost with its node or its actor")
                except ray.exceptions.RayTaskError as error:
                    process.lost(f"could not be started: {error.cause}")
                if process.code is None:
                    process.pending = process.actor.poll.remote()


def workers_of(text: str) -> tuple[int, int]:
    """Return the smallest and the largest number of workers of a value such as `4` or `2..8`.

    Raises:
        ValueError: It is neither.
    """
    least, dots, most = text.partition("..")
    try:
        numbers = int(least), int(most) if dots else int(least)
    except ValueError:
        numbers = (0, 0)
    if not 1 <= numbers[0] <= numbers[1] <= 1024:
        raise ValueError(f"--workers must be a number such as 4 or a range such as 2..8, up to 1024; received {text!r}")
    return numbers
