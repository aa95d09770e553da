"""A machine of the simulated world, with a disk and a wall clock."""

from __future__ import annotations

from downpour.bench.world.system.disk import VirtualDisk
from downpour.bench.world.system.scheduler import World


class Machine:
    """A machine, whose disk outlives its processes.

    Attributes:
        name: The name of the machine.
        address: Its IP address.
        wall_offset_s: The difference of its wall clock from the world's, in seconds.
        disk: The content of its disk.
    """

    def __init__(self, world: World, name: str, number: int) -> None:
        """Create a machine with an empty disk; `number` is unique in its world."""
        self.address = f"10.0.0.{number}"
        self.name, self.disk = name, VirtualDisk(world)
        self.wall_offset_s = 0.0

    def change_clock(self, seconds: float) -> None:
        """Set the wall clock forward by a number of seconds, or backward if it is negative."""
        self.wall_offset_s += seconds
