"""What a replayed script reaches on one shard: the weights of the version that is asked for, or no progress."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.config import ServerSettings
from downpour.ps.control_plane.replay_recorder import save_initial
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.data_plane.snapshot import weights_state
from downpour.ps.storage.atomic_file import atomic_write
from downpour.ps.trace.call_log import DTYPE
from downpour.ps.trace.call_order import CallOrder
from downpour.ps.trace.files import per_shard

STALLED_S = 120.0  # without a call, while a worker waits for its turn
LOOK_S = 0.1


def followed_order(settings: ServerSettings) -> CallOrder | None:
    """Return the order of calls that a server must follow; None unless it replays a script.

    Raises:
        ValueError: The file has records of another kind.
    """
    if settings.replay_of is None:
        return None
    path = Path(settings.replay_of) / per_shard("calls", settings.shard)
    records: np.ndarray = np.load(path, allow_pickle=False)
    if records.dtype != DTYPE:
        raise ValueError(f"{path} must contain records of {DTYPE.names}; received {records.dtype.names}.")
    return CallOrder(records)


def weights_file(shard: int) -> str:
    """Return the name of the file with a shard's part of the weights of the version that is asked for."""
    return f"weights-shard{shard}.safetensors"


class ReplayTarget:
    """Writes the weights of a shard when a replay has reached the version that is asked for."""

    def __init__(self, settings: ServerSettings, order: CallOrder, runtime: ShardRuntime) -> None:
        """Wait until an order has reached that version.

        Args:
            settings: The settings of the server.
            order: The order that it follows.
            runtime: The shard.
        """
        self._path = Path(settings.replay_of or "") / weights_file(settings.shard)
        self._order, self._runtime = order, runtime
        self._made, self._since_s = 0, 0.0
        self._looks = False
        order.add_advance_callback(self._advanced)

    def _advanced(self) -> None:
        if self._order.target is not None and not self._looks:
            self._looks = True
            self._look()

    def _look(self) -> None:
        """Write the weights once the pushes up to here have made their last update."""
        shard = self._runtime.shard
        if shard is None or shard.version != self._order.target:
            asyncio.get_running_loop().call_later(LOOK_S, self._look)
            return
        layout, part = self._runtime.builder.layout, self._runtime.builder.slice
        assert layout is not None and part is not None
        buffer, _ = shard.pull()
        state = weights_state(buffer.array, part, pb.SnapshotInfo(), lambda: shard.release(buffer))
        with atomic_write(self._path) as place:
            save_initial(place, dict(state.vectors), layout)
        state.release()
        self._order.pass_mark()

    def stalled(self, now: float) -> str:
        """Return why the replay cannot continue, because the script differs; empty while it continues."""
        waits = self._runtime.waiting and self._order.target is None
        if not waits or self._order.made != self._made:
            self._made, self._since_s = self._order.made, now
            return ""
        if now < self._since_s + STALLED_S:
            return ""
        return (
            f"the replay waits for {self._order.awaited}, which has not come for {STALLED_S:.0f} s: the script must do "
            "what it did in its run"
        )
