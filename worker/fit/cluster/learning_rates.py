"""Sends learning rates to the coordinator, at a barrier or between two, where no call may raise a lost session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError
from downpour.worker.exchange.outage import CoordinatorGone
from downpour.worker.fit.cluster.script_worker import LOST, ScriptWorker


class Tables(Protocol):
    """The tables of the learning rates of optimizers, which know what was sent."""

    def forget_sent(self) -> None:
        """Offer the tables again, because the servers do not have them."""


def send_rates(member: ScriptWorker, tables: Tables, rates: Sequence[pb.LearningRates]) -> None:
    """Send tables of learning rates, as worker 0.

    Raises:
        DownpourError: They were not sent; they are offered again.
    """
    try:
        member.set_learning_rates(rates)
    except DownpourError:
        tables.forget_sent()
        raise


@contextmanager
def kept_for_next_session() -> Iterator[None]:
    """Within this context, ignore the loss of the session, after which a push or a barrier begins another one.

    Raises:
        CoordinatorGone: The coordinator has been away for longer than is tolerated.
    """
    try:
        yield
    except CoordinatorGone:
        raise
    except LOST:
        pass
