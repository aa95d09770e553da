"""Injects the faults of a simulated job: at their times, or when the messages that they name arrive."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from downpour.bench.world.checks.checkpoints import newest_checkpoint
from downpour.bench.world.checks.watch import Watch
from downpour.bench.world.faults import CALLS, REQUESTS, Fault, written
from downpour.bench.world.system.machine import Machine
from downpour.bench.world.system.network import VirtualCall, VirtualNetwork
from downpour.bench.world.system.process import VirtualProcess
from downpour.bench.world.system.scheduler import World
from downpour.bench.world.user_requests import SimulatedUser

BY_NUMBER = ("killat", "powerat", "lose", "hang", "nan", "lie", "report")  # which the process itself counts


class FaultInjection:
    """Injects the faults of one job.

    Attributes:
        must_save: Whether the job must save its model, because the only fault is a signal to all processes.
    """

    def __init__(
        self,
        world: World,
        network: VirtualNetwork,
        faults: Sequence[Fault],
        processes: Mapping[str, VirtualProcess],
        machine: Callable[[str], Machine],
        watch: Watch,
    ) -> None:
        """Create an injection that has not begun.

        Args:
            world: The world.
            network: Its network.
            faults: The faults of the job.
            processes: The newest process of every name.
            machine: A function that returns the machine of a process.
            watch: The checks of the job.
        """
        self._world, self._network, self._faults, self._processes = world, network, faults, processes
        self._machine, self._watch = machine, watch
        self._random = random.Random(f"faults {written(faults)}")
        self.must_save = False
        self._users: list[SimulatedUser] = []

    def end(self) -> None:
        """End the processes of the users."""
        for user in self._users:
            user.process.kill()

    def begin(self) -> None:
        """Arrange for every fault to happen."""
        for fault in self._faults:
            if fault.kind in CALLS:
                name, method = fault.target.split("/")
                self._network.when_arrives(name, method, int(fault.at), self._at_message(fault, name))
            elif fault.kind not in BY_NUMBER:
                self._world.at(fault.at, None, self._execute, fault)

    def prepare(self, process: VirtualProcess, starts: int) -> None:
        """Give a new process the faults that it counts itself; `starts` is how often it has been started."""
        for fault in self._faults:
            if fault.target != process.name:
                continue
            if fault.kind in ("killat", "powerat") and starts == 1:
                process.kill_before(int(fault.at), loses_power=fault.kind == "powerat")
            elif fault.kind == "lose":
                process.lost_replies.add(int(fault.at))

    def _at_message(self, fault: Fault, name: str) -> Callable[[VirtualCall], None]:
        def act(call: VirtualCall) -> None:
            self._world.note(f"fault {fault}")
            if fault.kind == "resetcall":
                call.connection.reset()
            elif name in self._processes:
                self._hit(replace(fault, kind=fault.kind.removesuffix("call")), name)

        return act

    def _execute(self, fault: Fault) -> None:
        self._world.note(f"fault {fault}")
        if fault.kind == "termall":
            self.must_save = len(self._faults) == 1 and self._watch.all_train()
            for name in sorted(self._processes):
                self._hit(Fault("term", name, fault.at), name)
        elif fault.kind in REQUESTS:
            self._users.append(SimulatedUser(self._world, self._machine("user"), fault, self._watch.other_mode))
        elif fault.kind == "cut":
            first, second = fault.targets
            self._network.cut_off(first, second, fault.seconds)
        else:
            for name in fault.targets:
                self._hit(fault, name)

    def _hit(self, fault: Fault, name: str) -> None:
        """Inject a fault into a machine, or into its process if that lives."""
        process, machine = self._processes.get(name), self._machine(name)
        disk, later = machine.disk, self._world.now + fault.seconds
        if fault.kind in ("full", "readonly"):
            state = "full" if fault.kind == "full" else "read_only"
            setattr(disk, state, True)
            self._world.at(later, None, setattr, disk, state, False)
        elif fault.kind == "clock":  # forward or backward
            machine.change_clock(fault.seconds * self._random.choice((-1, 1)))
        elif process is None or not process.alive:
            return
        elif fault.kind in ("kill", "power", "damage"):
            process.kill()
            if fault.kind == "power":
                disk.lose_power()
            elif fault.kind == "damage":
                self._damage(machine)
        elif fault.kind == "stop":
            process.stop()
            self._world.at(later, None, process.resume)
        elif fault.kind == "term":
            process.signal(signal.SIGTERM)
        elif fault.kind == "reset":
            self._network.reset_connections(process)

    def _damage(self, machine: Machine) -> None:
        """Damage the newest checkpoint or a trace: a bit of it changes, or its end is lost."""
        disk, rng = machine.disk, self._random
        checkpoint = newest_checkpoint(disk)
        traces = sorted(path for path in disk.names if path.startswith("/run/trace"))
        if rng.random() < 0.5 and traces:
            path = rng.choice(traces)
        elif checkpoint is not None:
            path = checkpoint
        else:
            return
        inode = disk.inode(path)
        size = len(inode.content)
        if path != checkpoint or rng.random() < 0.3:
            inode.content = inode.content[: rng.randrange(size)] if size else inode.content
        else:
            header = 8 + int.from_bytes(inode.content[:8], "little")  # of the format safetensors
            first = header if header < size and rng.random() < 0.5 else 0
            inode.content[rng.randrange(first, size)] ^= 1 << rng.randrange(8)
        inode.flushed = bytes(inode.content)
        self._world.note(f"{path} is damaged")
        if path == checkpoint:
            self._watch.damaged(disk, path)
