"""The shards of a job: where they are, which view of the workers they know, whether they have weights. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict


class ShardTable:
    """Which shards are there.

    Attributes:
        initialisation: How many initialisations were given up half way.
    """

    def __init__(self, count: int) -> None:
        """None of `count` shards is there."""
        self.initialisation = 0
        self._count = count
        self._addresses: dict[int, pb.ShardAddress] = {}
        self._views: dict[int, int] = {}
        self._initialised: set[int] = set()

    def __len__(self) -> int:
        """Shards that are there."""
        return len(self._addresses)

    def __iter__(self) -> Iterator[int]:
        """Their numbers."""
        return iter(sorted(self._addresses))

    @property
    def joined(self) -> bool:
        """Whether every shard is there."""
        return len(self._addresses) == self._count

    @property
    def missing(self) -> list[int]:
        """Numbers of those that are not."""
        return sorted(set(range(self._count)) - set(self._addresses))

    def addresses(self, generation: int) -> list[pb.ShardAddress]:
        """Where the shards are, in their present generation."""
        found = []
        for shard in self:
            address = pb.ShardAddress()
            address.CopyFrom(self._addresses[shard])
            address.generation = generation
            found.append(address)
        return found

    def add(self, address: pb.ShardAddress) -> None:
        """Takes a shard in.

        Raises:
            InvalidRequest: Its number is not one of this job's.
            JobConflict: That shard is there already.
        """
        if not address.shard < self._count:
            raise InvalidRequest(f"a shard's number must be below {self._count}; received {address.shard}.")
        if address.shard in self._addresses:
            raise JobConflict(
                f"shard {address.shard} is at {self._addresses[address.shard].address} already: start another number."
            )
        self._addresses[address.shard] = address

    def remove(self, shard: int) -> bool:
        """Takes a shard out; returns whether it was there."""
        self._views.pop(shard, None)
        self._initialised.discard(shard)
        return self._addresses.pop(shard, None) is not None

    # ------------------------------------------------------------------ what they know

    def seen(self, shard: int, view: int) -> None:
        """A shard knows the view of that number."""
        self._views[shard] = view

    def settled(self, view: int) -> bool:
        """Whether every shard that is there knows the view of that number."""
        return all(self._views.get(shard, 0) >= view for shard in self._addresses)

    # ------------------------------------------------------------------ what they have

    @property
    def initialised(self) -> bool:
        """Whether every shard has weights."""
        return len(self._initialised) == self._count

    def has_weights(self, shard: int, initialisation: int) -> None:
        """A shard says that it has weights; those of an initialisation that was given up do not count."""
        if initialisation == self.initialisation:
            self._initialised.add(shard)

    def void(self) -> int:
        """The weights that some shards may have are void; returns the number of the initialisation to come."""
        self.initialisation += 1
        self._initialised.clear()
        return self.initialisation

    def forget_weights(self) -> None:
        """No shard has weights: another generation begins."""
        self._initialised.clear()
