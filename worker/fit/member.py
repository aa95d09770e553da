"""A script's worker in its cluster: one session for each call of `fit`, and the barriers with the other workers."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError, UnknownWorker
from downpour.protos.layout import Layout
from downpour.worker.exchange.client import Client, Pulled, Samples
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.session import SESSION_LOST, Session, SessionSettings
from downpour.worker.exchange.timing import TimeSpent

if TYPE_CHECKING:
    from downpour.worker.fit.leased_dataset import Leases

LEADER = 0
RETRY_S = 0.2
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """What a worker brings to a call of `fit`.

    Attributes:
        layout: Of the model.
        carried: Its optimizer.
        fingerprint: Of what must be the same everywhere and is not in the layout.
        samples: That it trains on.
        lease_samples: Of which it wants so many on loan at a time; 0: it has its own.
        slots: Of the optimizer by name, `float32[n]`, if it has been used before; worker 0's count.
        step: Updates that the optimizer has behind it.
        initial: Its weights `float32[n + m]`; worker 0's count.
        facts: Versions that bits depend on.
    """

    layout: Layout
    carried: pb.OptimizerSpec
    fingerprint: str
    initial: np.ndarray
    facts: dict[str, str]
    samples: int = 1
    lease_samples: int = 0
    slots: Mapping[str, np.ndarray] = field(default_factory=dict)
    step: int = 0


class ScriptWorker:
    """One worker of a script.

    Attributes:
        rank: Its number, from 0.
        size: Workers that the job was started with.
        past: Whether the others are through with the present call of `fit`.
        spent: What its time went to.
        stages: Calls of `fit` so far.
        leases: What it has on loan in the present call of `fit`; None: it has samples of its own.
        decisions: Of worker 0, on the epochs that the present call of `fit` had behind it when this worker came.
    """

    def __init__(self, control: CoordinatorClient, job: pb.JobDescription, rank: int, call_timeout_s: float) -> None:
        """Joins nothing yet.

        Args:
            control: The coordinator.
            job: As it describes itself.
            rank: This worker's number.
            call_timeout_s: How long an awaited message may take.
        """
        self.rank, self.size = rank, job.workers
        self.past, self.decisions = False, list[pb.Decision]()
        self.leases: Leases | None = None
        self._control, self._job, self._timeout_s = control, job, call_timeout_s
        self.stages = 0
        self.spent = TimeSpent()
        self._stage: Stage | None = None
        self._session: Session | None = None  # of the present call of fit
        # TensorFlow calls from any thread of its own, and gRPC's event loop wants one.
        self._thread = ThreadPoolExecutor(1, "shards")

    @property
    def leads(self) -> bool:
        """Whether this is worker 0."""
        return self.rank == LEADER

    @property
    def draining(self) -> bool:
        """Whether training is to stop with the batch that there is."""
        return self._session is not None and self._session.draining

    @property
    def seed(self) -> int:
        """Of the job."""
        return self._job.seed

    @property
    def nonfinite_limit(self) -> int:
        """Gradients in a row that may hold NaN."""
        return self._job.nonfinite_limit

    # ------------------------------------------------------------------ a call of fit

    def enter(self, stage: Stage) -> np.ndarray | None:
        """Joins the others in the next call of `fit`; returns its weights `float32[n + m]`, None if it is past.

        Raises:
            DownpourError: As the coordinator or a shard said.
        """
        self.stages += 1
        self._stage, self._session = stage, self._session_of(stage)
        self._session.register()
        self._await_start(stage)
        return None if self.past else self.pull()[0]

    def leave(self, failure: str = "") -> None:
        """Parts with the others: this call of `fit` is over."""
        if self.leases is not None:
            self.leases.clear()
            self.leases = None
        session, self._session = self._session, None
        if session is None or self.past:
            return
        spent, self.spent = self.spent, TimeSpent()
        session.leave(failure, spent)

    def close(self) -> None:
        """Ends the connection to the coordinator."""
        self.leave()
        self._thread.shutdown()
        self._control.close()

    def _session_of(self, stage: Stage) -> Session:
        registration = pb.RegisterRequest(
            worker=self.rank,
            layout=stage.layout.to_proto(),
            data=pb.DatasetInfo(
                name="a script's",
                checksum=stage.fingerprint,
                train_samples=stage.samples,
                lease_samples=stage.lease_samples,
            ),
            environment=stage.facts,
            fit_call=self.stages,
            optimizer=stage.carried,
        )
        settings = SessionSettings(timeout_s=self._timeout_s, fixed_rank=True)
        return Session(self._control, self._job, registration, settings, self._run)

    def _await_start(self, stage: Stage) -> None:
        session = self._registered
        self.past, self.decisions = session.reply.fit_completed, list(session.reply.decisions)
        if not self.past:
            session.await_start(lambda client: self._initialise(client, stage))

    @staticmethod
    def _initialise(client: Client, stage: Stage) -> None:
        client.initialise(stage.initial)
        for name, slot in stage.slots.items():
            whole = np.zeros(stage.layout.size, np.float32)
            whole[: len(slot)] = slot
            client.assign(whole, name, stage.step)

    @property
    def _registered(self) -> Session:
        assert self._session is not None, "a worker must be within fit"
        return self._session

    @property
    def _connected(self) -> Client:
        return self._registered.client

    def _run(self, call: Callable[[], T]) -> T:
        return self._thread.submit(call).result()

    # ------------------------------------------------------------------ weights

    def pull(self, pin: int = 0) -> tuple[np.ndarray, int]:
        """Weights `float32[n + m]`, valid until the next call, and shard 0's version."""
        pulled = self._again(lambda: self._connected.pull(pin))
        return pulled.flat, pulled.versions[0]

    def push_pull(self, gradient: np.ndarray, norm: float, samples: Samples) -> np.ndarray:
        """Pushes a gradient `float32[n + m]` and returns weights `float32[n + m]`, valid until the next call.

        A gradient whose session has ended is lost, and the weights are those of the next one.
        """

        def exchange() -> Pulled:
            self._registered.check()
            return self._connected.push_pull(gradient, norm, samples, nonfinite=not np.isfinite(norm))

        try:
            return self._run(exchange).flat
        except SESSION_LOST as error:
            self._rejoin(error)
            return self.pull()[0]

    def assign(self, flat: np.ndarray) -> None:
        """Sets other weights `float32[n + m]` on all shards, while the others wait."""
        self._run(lambda: self._connected.assign(flat))

    def slots(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """The optimizer's slots of these names, `float32[n]`, as the servers have them now."""
        assert self._stage is not None
        trained = self._stage.layout.trained

        def copy_of(name: str) -> np.ndarray:
            return self._connected.pull_slot(name)[:trained].copy()

        return {name: self._run(functools.partial(copy_of, name)) for name in names}

    def _again(self, call: Callable[[], T]) -> T:
        try:
            return self._run(call)
        except SESSION_LOST as error:
            self._rejoin(error)
            return self._run(call)

    def lease(self) -> pb.Task:
        """Waits a while for the next samples of this epoch."""
        while True:
            try:
                return self._control.lease(self._registered.number)
            except UnknownWorker:
                time.sleep(RETRY_S)  # the thread that pushes joins again

    def _rejoin(self, error: DownpourError) -> None:
        assert self._stage is not None
        if self.leases is not None:
            self.leases.clear()
        self._registered.rejoin(error)
        self._await_start(self._stage)
        if self.past:
            raise UnknownWorker("the others are through with this call of fit: this worker was silent too long.")

    # ------------------------------------------------------------------ meetings

    def set_rates(self, rates: pb.LearningRates) -> None:
        """Says the learning rate of the updates to come; worker 0 alone."""
        self._control.set_rates(pb.SetLearningRatesRequest(session=self._registered.number, rates=rates))

    def meet(self, epoch: int, values: Sequence[float], stop: bool = False, farewell: bool = False) -> pb.BarrierReply:
        """Waits for the others; all but worker 0, also for what it decides."""
        request = pb.BarrierRequest(epoch=epoch, values=values, stop=stop, end_of_fit=farewell)
        while True:
            request.session = self._registered.number
            try:
                reply = self._control.meet(request)
            except UnknownWorker as error:
                self._rejoin(error)
                continue
            if reply.HasField("decision") or (self.leads and reply.complete):
                return reply

    def decide(self, epoch: int, values: Sequence[float], decision: pb.Decision, farewell: bool = False) -> None:
        """Says, as worker 0, how it goes on after a meeting of all."""
        request = pb.BarrierRequest(epoch=epoch, values=values, decision=decision, end_of_fit=farewell)
        request.session = self._registered.number
        self._control.meet(request)
