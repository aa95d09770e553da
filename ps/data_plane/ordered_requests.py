"""Makes the requests of workers wait for their turn in the recorded order of a run that is replayed."""

from __future__ import annotations

import asyncio

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.core.shard import Shard
from downpour.ps.data_plane.cut import ShardCut
from downpour.ps.data_plane.waiters import Waiters
from downpour.ps.trace.call_log import Call
from downpour.ps.trace.call_order import CallOrder

KINDS = {pb.PUSH_PULL: Call.PUSH, pb.PULL: Call.PULL, pb.ASSIGN: Call.ASSIGN}


class OrderedCut(ShardCut):
    """Holds back every request that is not the next one of the record."""

    def __init__(self, order: CallOrder) -> None:
        """Create a state in which no request is held."""
        super().__init__()
        self._order = order
        self._changed: asyncio.Future[None] | None = None
        order.add_advance_callback(self._release)

    @property
    def waits(self) -> bool:
        """Whether a request waits for another one."""
        return self._changed is not None

    def held(self, header: pb.Request) -> asyncio.Future[None] | None:
        """Return a future that a request must wait for before it is checked again; None if it may be taken."""
        call = KINDS.get(header.kind)
        if call is None or (call == Call.PULL and (header.pin or header.slot)):
            return None
        if self._order.admits(call, header.worker, header.seq):
            return super().held(header)
        self._order.check(call, header.worker, header.seq)
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        return self._changed

    def _release(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)


class OrderedWaiters(Waiters):
    """Workers whose reply has the weights that it had in the run, whatever the mode would let them wait for."""

    def __init__(self, order: CallOrder) -> None:
        """Create a collection without waiting workers."""
        super().__init__()
        self._order = order
        order.add_advance_callback(lambda: self.release(None))

    def may_answer(self, shard: Shard, header: pb.Request) -> bool:
        """Return whether the reply to a push may have the present weights."""
        return header.no_pull or self._order.admits(Call.PULL, header.worker)

    def release(self, shard: Shard | None) -> None:
        """Complete the future of the worker whose turn it is."""
        worker = next((worker for worker in self._waiting if self._order.admits(Call.PULL, worker)), None)
        if worker is not None:
            ready, take = self._waiting.pop(worker)
            if not ready.done():
                ready.set_result(take())


def drive(order: CallOrder, shard: Shard | None) -> None:
    """Make the next call of the record, if it lets a worker rest or resume, or applies buffered pushes."""
    driven = order.driven
    if driven is None or shard is None:
        return
    call, worker = driven
    if call == Call.FLUSH:
        shard.flush()
    elif call in (Call.REST, Call.JOIN_RESTING):
        shard.rest(worker)
    else:
        shard.resume(worker)
    order.pass_driven()
