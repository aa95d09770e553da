"""The heartbeat of a session, and the check of awaited messages for their deadlines."""

from __future__ import annotations

import math
from collections.abc import Callable

from downpour.protos.errors import DeadlineExceeded, DownpourError, Unreachable
from downpour.protos.system import clock, threads
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.outage import CoordinatorGone

ENDING_PERIOD_S = 0.25  # heartbeat interval once the end of the job is awaited
WATCH_PERIOD_S = 0.25


class Heartbeat:
    """Renews a session in one thread, and checks the deadlines of awaited messages in another.

    Attributes:
        lost: The error with which the coordinator ended the session; None while it lasts.
        drain: Whether the worker must stop after the current batch.
        over: The phase in which the job is over; empty until then.
        deadline: The monotonic time by which evaluations must end; infinite unless the end of the job is awaited.
    """

    def __init__(
        self,
        control: CoordinatorClient,
        session: int,
        period_s: float,
        watch: Callable[[float], None],
        on_lost: Callable[[DownpourError], None],
    ) -> None:
        """Start the thread that sends heartbeats and the one that checks deadlines.

        Args:
            control: The client of the coordinator.
            session: The number of the session to renew.
            period_s: The interval between two heartbeats, in seconds.
            watch: A callback that receives the monotonic time every `WATCH_PERIOD_S` seconds.
            on_lost: A callback that receives the error when the session has ended.
        """
        self.lost: DownpourError | None = None
        self.drain, self.over, self.deadline = False, "", math.inf
        self._control, self._session, self._period_s = control, session, period_s
        self._watch, self._on_lost = watch, on_lost
        self._stopped = threads.event()
        threads.start(self._renew, "heartbeat")
        threads.start(self._check_deadlines, "deadlines")

    @property
    def ending(self) -> bool:
        """Whether the end of the job is awaited, so that long work should be abandoned."""
        return not math.isinf(self.deadline)

    def stop(self) -> None:
        """Tell both threads to end; the session is not renewed again."""
        self._stopped.set()

    def _renew(self) -> None:
        while not self._stopped.wait(ENDING_PERIOD_S if self.ending else self._period_s):
            try:
                reply = self._control.heartbeat(self._session)
                self.drain, self.over = reply.drain, self.over or reply.final_phase
                if reply.remaining_s:
                    self.deadline = clock.monotonic() + reply.remaining_s
                    self._control.tolerate_outage(0.0)  # a server that disappears now does not return
            except (DeadlineExceeded, Unreachable) as error:
                if isinstance(error, CoordinatorGone):
                    self._end(error)
                    return
                continue  # the data plane will detect it, and has its own deadline
            except ValueError:
                if self._stopped.is_set():
                    return  # gRPC raises it on a channel that was closed in the meantime
                raise
            except DownpourError as error:
                self._end(error)
                return

    def _end(self, error: DownpourError) -> None:
        self.lost = error
        self._on_lost(error)

    def _check_deadlines(self) -> None:
        while not self._stopped.wait(WATCH_PERIOD_S):
            self._watch(clock.monotonic())
