"""The shards of a job: their addresses, the view of the members that each knows, and whether it has weights.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterator

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict


class ShardTable:
    """Records which shards have joined.

    Attributes:
        initialisation: The number of initialisations of this generation that were abandoned before every shard had
            weights.
    """

    def __init__(self, count: int) -> None:
        """Create a table of `count` shards of which none has joined."""
        self.initialisation = 0
        self._count = count
        self._addresses: dict[int, pb.ShardAddress] = {}
        self._views: dict[int, int] = {}
        self._initialised: set[int] = set()
        self._voided_view = 0  # the view that the shards received with the command to void their weights

    def __len__(self) -> int:
        """Return the number of shards that have joined."""
        return len(self._addresses)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the numbers of the shards that have joined, in order."""
        return iter(sorted(self._addresses))

    @property
    def joined(self) -> bool:
        """Return whether every shard has joined."""
        return len(self._addresses) == self._count

    @property
    def missing(self) -> list[int]:
        """Return the numbers of the shards that have not joined."""
        return sorted(set(range(self._count)) - set(self._addresses))

    def addresses(self, generation: int) -> list[pb.ShardAddress]:
        """Return the addresses of the shards, with their present generation."""
        found = []
        for shard in self:
            address = pb.ShardAddress()
            address.CopyFrom(self._addresses[shard])
            address.generation = generation
            found.append(address)
        return found

    def add(self, address: pb.ShardAddress) -> None:
        """Add a shard that has joined.

        Raises:
            InvalidRequest: The shard's number is not below the job's number of shards.
            JobConflict: A shard of that number has joined already.
        """
        if not address.shard < self._count:
            raise InvalidRequest(f"a shard's number must be below {self._count}; received {address.shard}.")
        if address.shard in self._addresses:
            raise JobConflict(
                f"shard {address.shard} has already joined from {self._addresses[address.shard].address}: "
                "start this one with another --shard."
            )
        self._addresses[address.shard] = address

    def remove(self, shard: int) -> bool:
        """Remove a shard; return whether it had joined."""
        self._views.pop(shard, None)
        self._initialised.discard(shard)
        return self._addresses.pop(shard, None) is not None

    # ------------------------------------------------------------------ views

    def seen(self, shard: int, view: int) -> None:
        """Record that a shard has adopted the view of that number."""
        self._views[shard] = view

    def settled(self, view: int) -> bool:
        """Return whether every shard that has joined has adopted the view of that number."""
        return not self.unsettled(view)

    def unsettled(self, view: int) -> list[int]:
        """Return the shards that have joined and have not adopted the view of that number yet."""
        return [shard for shard in self._addresses if self._views.get(shard, 0) < view]

    # ------------------------------------------------------------------ weights

    @property
    def initialised(self) -> bool:
        """Return whether every shard has weights."""
        return len(self._initialised) == self._count

    def has_weights(self, shard: int, initialisation: int) -> None:
        """Record that a shard has weights, unless they are of an initialisation that was abandoned."""
        if initialisation >= self.initialisation:
            self._initialised.add(shard)

    @property
    def may_be_initialised(self) -> bool:
        """Return whether weights that a worker sends now arrive after the command to void earlier ones."""
        return self.settled(self._voided_view)

    def void(self, view: int) -> int:
        """Void the weights that some shards may have; return the number of the next initialisation.

        The shards receive the command together with the view of that number.
        """
        self.initialisation += 1
        self._initialised.clear()
        self._voided_view = view
        return self.initialisation

    def forget_weights(self) -> None:
        """Record that no shard has weights, because another generation begins, whose initialisations count from 0."""
        self.initialisation = 0
        self._initialised.clear()
