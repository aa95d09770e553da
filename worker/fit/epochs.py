"""The epochs of one call of `fit` on one worker, from joining the others to the weights that all end with.

At the end of every epoch all live workers meet: metrics are summed over them, worker 0 takes the weights, validates,
runs the callbacks and says how it goes on.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.fit.callback_state import heard, restore, said, state_of
from downpour.worker.fit.distributed_optimizer import keep, set_wire
from downpour.worker.fit.gradient_op import GradientOp
from downpour.worker.fit.member import ScriptWorker, Stage
from downpour.worker.fit.metric_reduction import read_metrics, tell_no_sums, write_metrics
from downpour.worker.fit.optimizer_slots import Slots
from downpour.worker.fit.optimizer_spec import carried_of, rates_of, slot_names

UNKNOWN_STEPS = 10_000  # in an epoch, until the first one has been counted


class Epochs:
    """The epochs of one call of `fit` on one worker.

    Attributes:
        model: That is trained.
        member: This worker.
        error: What went wrong below TensorFlow.
    """

    def __init__(
        self,
        model: keras.Model,
        member: ScriptWorker,
        first: int,
        epochs: int,
        leased: Any = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        """Joins nothing yet.

        Args:
            model: Compiled.
            member: This worker.
            first: `initial_epoch` of `fit`.
            epochs: `epochs` of `fit`.
            leased: A LeasedDataset, if there is one.
            callbacks: The script's, which worker 0 alone runs.
        """
        self._callbacks = callbacks
        self._leased = leased
        self.model, self.member = model, member
        self._first, self._epochs = first, epochs
        self._wire: GradientOp | None = None
        self._training = False  # between the first and the last batch of an epoch
        self._values: list[float] = []
        self._decided = True  # worker 0 has said how the epoch before goes on
        self._logs: dict[str, float] = {}  # of that epoch, as callbacks saw them
        self._more_logs = ""
        self._last = False  # there is none after it
        self._told, self._told_no_sums = pb.LearningRates(), False
        self._flat = np.empty(0, np.float32)
        self._version, self._steps_per_epoch = 0, UNKNOWN_STEPS
        self._begun = 0  # iterations of the optimizer before this call of `fit`
        self._slots: tuple[str, ...] = ()

    @property
    def leased(self) -> bool:
        """Whether the samples are on loan."""
        return self._leased is not None

    @property
    def error(self) -> Exception | None:
        """What went wrong below TensorFlow, which passes on no more than a text."""
        return self._wire.error if self._wire else None

    @property
    def wire(self) -> GradientOp:
        """To the servers."""
        assert self._wire is not None
        return self._wire

    # ------------------------------------------------------------------ begin

    def begin(self, steps: int | None) -> None:
        """Joins the others with the model that has just been built.

        Args:
            steps: Batches of this worker in an epoch, where they are known.
        """
        model, member = self.model, self.member
        if steps:
            self._steps_per_epoch = steps * member.size
        self._wire = wire = GradientOp(model, model.optimizer, member)
        self._begun = int(model.optimizer._iterations.numpy())
        carried = carried_of(model.optimizer, model.optimizer.plain, self._begun, 2 * self._steps_per_epoch)
        self._told, self._slots = carried.learning_rates, slot_names(carried)
        facts = {
            "tensorflow": tf.__version__, "keras": keras.__version__, "python": platform.python_version(),
            "machine": platform.machine(),
        }  # fmt: skip
        kept = model.optimizer.kept
        stage = Stage(
            wire.layout,
            carried,
            wire.fingerprint,
            wire.read(),
            facts,
            samples=self._leased.samples if self._leased is not None else 1,
            lease_samples=self._leased.lease_samples if self._leased is not None else 0,
            slots=kept.vectors if kept is not None and kept.are_of(wire.trained) else {},
            step=self._begun,
        )
        flat = member.enter(stage)
        if flat is None or member.decisions:
            behind = self._epochs if flat is None else self._first + len(member.decisions)
            model._initial_epoch = behind  # where Keras's loop begins
        if flat is not None:
            wire.write(flat)
            _spread_seeds(model, member.rank)
            set_wire(model.optimizer, wire)

    def complete(self, history: Any) -> None:
        """Adds the epochs that were over before this worker came."""
        for epoch, decision in enumerate(self.member.decisions, start=self._first):
            history.epoch.insert(epoch - self._first, epoch)
            for name, value in {**decision.logs, **heard(decision.other_logs)}.items():
                history.history.setdefault(name, []).insert(epoch - self._first, value)

    def begin_epoch(self, epoch: int) -> None:
        """Counts anew, once the script's callbacks have begun it too."""
        self.settle()
        self.wire.begin_epoch(epoch - self._first)
        self._training, self._decided = True, False
        if self.member.leads:
            self._tell_rates()
            self._told_no_sums = self._told_no_sums or (self.member.size > 1 and tell_no_sums(self.model))

    def after_batch(self) -> None:
        """Stops where another worker, or a person, wants it; passes on a learning rate that a callback has set."""
        if self.member.draining:
            self.model.stop_training = True
        if self.member.leads:
            self._tell_rates()

    # ------------------------------------------------------------------ the meeting

    @contextmanager
    def aside(self) -> Iterator[None]:
        """While it lasts, the model is evaluated: by Keras after an epoch, or by a callback in the middle of one."""
        training, self._training = self._training, False
        try:
            yield
        finally:
            self._training = training

    def end_of_batches(self, logs: Any, result: Callable[[Any], Any]) -> Any:
        """Called by Keras's loop when the epoch's batches are used: the logs of all workers.

        Args:
            logs: Of the last batch.
            result: From those to what the metrics say.
        """
        local = result(logs)
        if not self._training:
            return local  # this is an evaluation
        self._training = False
        if self.member.leases is not None:
            self.member.leases.clear()
        names = sorted(name for name, value in local.items() if np.ndim(value) == 0)
        used = float(self.wire.used)
        own = [float(local[name]) * used for name in names]
        counts = [used, float(self.wire.steps), 1.0]
        metrics = read_metrics(self.model, self.member.leads)
        self._values = [*counts, *own, *metrics] if self.wire.steps else []
        reply = self.member.meet(self.wire.epoch, self._values, bool(self.model.stop_training))
        if not self.member.leads or reply.HasField("decision"):
            return self._obey(reply.decision)
        sums = list(reply.sums)
        self._steps_per_epoch = int(sums[1]) or self._steps_per_epoch
        totals, of_metrics = np.split(np.array(sums[3:]), [len(names)])
        means = {name: total / sums[0] for name, total in zip(names, totals, strict=True)}
        write_metrics(self.model, of_metrics, workers=sums[2])
        self._take(reply.pin)
        global_logs = self.model.get_metrics_result()
        return global_logs if set(global_logs) == set(local) else {**local, **means}

    def end_epoch(self, epoch: int, logs: dict[str, Any] | None) -> None:
        """Notes what worker 0's callbacks have made of the epoch."""
        self._logs = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
        self._more_logs = said({name: np.asarray(v) for name, v in (logs or {}).items() if name not in self._logs})
        self._last = epoch + 1 >= self._epochs

    def settle(self) -> None:
        """Says, as worker 0, how it goes on: once the callbacks have begun the next epoch, or ended training."""
        if not self.member.leads or self._decided:
            return
        self._give_back()
        self._tell_rates(ahead=True)
        stop = bool(self.model.stop_training) or self._last
        rate = _rate_now(self.model.optimizer)
        decision = pb.Decision(stop=stop, logs=self._logs, other_logs=self._more_logs, learning_rate=rate)
        self.member.decide(self.wire.epoch, self._values, decision)
        self._decided = True

    def end(self) -> None:
        """All end with the same weights: those that worker 0's callbacks have left."""
        if self._wire is None or self.member.past:
            return
        self.settle()
        set_wire(self.model.optimizer, None)
        reply = self.member.meet(self.wire.epoch, (), farewell=True)
        if self.member.leads and not reply.HasField("decision"):
            self._give_back()
            decision = pb.Decision(stop=True, callback_state=state_of(self._callbacks))
            self.member.decide(self.wire.epoch, (), decision, farewell=True)
        elif not self.member.leads:
            restore(self._callbacks, reply.decision.callback_state)
        self._take(0)
        if self.member.leads and self._slots:
            keep(self.model.optimizer, Slots(self.wire.trained, self.member.slots(self._slots)))

    def _obey(self, decision: pb.Decision) -> dict[str, Any]:
        self._decided = True
        self._take(0)
        self.model.stop_training = bool(self.model.stop_training) or decision.stop
        rate = self.model.optimizer._learning_rate
        if isinstance(rate, keras.Variable):
            rate.assign(decision.learning_rate)
        return {**decision.logs, **heard(decision.other_logs)}

    def _take(self, pin: int) -> None:
        flat, self._version = self.member.pull(pin)
        self._flat = flat.copy()
        self.wire.write(self._flat)
        # The updates of all, which a schedule goes by: this worker has counted its own.
        self.model.optimizer._iterations.assign(self._begun + self._version)

    def _give_back(self) -> None:
        """Sends the weights to the servers if a callback has set others."""
        now = self.wire.read()
        if len(self._flat) and not np.array_equal(now, self._flat):
            self.member.assign(now)
            self._flat = now

    def _tell_rates(self, ahead: bool = False) -> None:
        optimizer = self.model.optimizer
        schedule = isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule)
        if schedule and not ahead:
            return
        rates = rates_of(optimizer, self._version, self._begun + self._version, 2 * self._steps_per_epoch)
        if rates != self._told:
            self._told = rates
            self.member.set_rates(rates)


def _rate_now(optimizer: Any) -> float:
    return float(tf.convert_to_tensor(optimizer.learning_rate))


def _spread_seeds(model: keras.Model, rank: int) -> None:
    """Workers that built the same model from one seed drop out different units."""
    for variable in model.non_trainable_variables:
        if rank and str(variable.path).endswith("seed_generator_state"):
            variable.assign(np.asarray(variable.value) + np.array([rank * 1_000_003, 0]).astype(variable.dtype))
