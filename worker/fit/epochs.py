"""The epochs of one call of `fit` on one worker, from joining the others to the final weights, equal on all.

At the end of every epoch all live workers meet at a barrier: metrics are summed over them, worker 0 pulls the weights,
validates, runs the callbacks and decides how training continues.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.fit.callback_state import decode_logs, encode_callbacks, encode_logs, restore_callbacks
from downpour.worker.fit.cluster.leases import Leases
from downpour.worker.fit.cluster.member import ScriptWorker
from downpour.worker.fit.cluster.stage import Stage
from downpour.worker.fit.metric_reduction import read_metrics, warn_of_initial_sums, write_metrics
from downpour.worker.fit.optimizer.distributed_optimizer import keep_slots, set_gradient_op
from downpour.worker.fit.optimizer.gradient_op import GradientOp
from downpour.worker.fit.optimizer.optimizer_slots import Slots
from downpour.worker.fit.optimizer.optimizer_spec import has_fixed_rate, optimizer_spec, rates_of, slot_names

UNKNOWN_STEPS = 10_000  # in an epoch, until the first one has been counted


@dataclass(frozen=True)
class FitArguments:
    """The arguments of `fit` that concern all workers.

    Attributes:
        initial_epoch: The number of the first epoch.
        epochs: The number of the last epoch, plus 1.
        callbacks: The callbacks of the script, which run on worker 0.
        epoch_samples: The number of samples that are leased in an epoch; 0 if each worker has a fixed part of the data.
        lease_samples: The number of samples in a lease.
        leases: The leases of this worker; None if each worker has a fixed part of the data.
        fingerprints: Fingerprints of the data of all workers.
        batch_size: The number of samples in a batch; 0 if the data are batched already.
    """

    initial_epoch: int
    epochs: int
    callbacks: Sequence[Any] = ()
    epoch_samples: int = 0
    lease_samples: int = 0
    leases: Leases | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 0


class Epochs:
    """The epochs of one call of `fit` on one worker.

    Attributes:
        model: The model that is trained.
        member: This worker.
    """

    def __init__(self, model: keras.Model, member: ScriptWorker, arguments: FitArguments) -> None:
        """Build the state of a call of `fit` that has not joined the other workers yet.

        Args:
            model: A compiled model.
            member: This worker.
            arguments: The arguments of `fit`.
        """
        self.model, self.member = model, member
        self._arguments = arguments
        self._gradient_op: GradientOp | None = None
        self._training = False  # between the first and the last batch of an epoch
        self._values: list[float] = []  # of this worker at the last barrier
        self._batches = 0  # of this worker in this epoch
        self._decided = True  # worker 0 has sent its decision on the last epoch
        self._logs: dict[str, float] = {}  # of the last epoch, as the callbacks saw them
        self._other_logs = ""
        self._last = False  # the last epoch was the final one
        self._sent_rates, self._warned_of_sums = pb.LearningRates(), False
        self._flat = np.empty(0, np.float32)  # weights of the last pull
        self._version, self._steps_per_epoch = 0, UNKNOWN_STEPS
        self._first_iteration = 0  # of the optimizer when this call of `fit` began
        self._slots: tuple[str, ...] = ()

    @property
    def leased(self) -> bool:
        """Whether the samples are leased."""
        return self._arguments.leases is not None

    @property
    def error(self) -> Exception | None:
        """The error of a train step, of which TensorFlow raises only the message; None if there is none."""
        return self._gradient_op.error if self._gradient_op else None

    @property
    def gradient_op(self) -> GradientOp:
        """The exchange of gradients and weights with the servers."""
        assert self._gradient_op is not None
        return self._gradient_op

    # ------------------------------------------------------------------ begin

    def begin(self, steps: int | None) -> None:
        """Join the other workers with the model, which has been built by now.

        Args:
            steps: The number of batches of this worker in an epoch; None if it is not known.
        """
        model, member, arguments = self.model, self.member, self._arguments
        if steps:
            self._steps_per_epoch = steps * member.size
        self._gradient_op = op = GradientOp(model, model.optimizer, member, arguments.leases)
        self._first_iteration = int(model.optimizer._iterations.numpy())
        flat = member.enter(self._stage(op))
        if flat is None or member.decisions:
            completed = arguments.epochs if flat is None else arguments.initial_epoch + len(member.decisions)
            model._initial_epoch = completed  # where Keras's loop begins
        if flat is not None:
            op.write(flat)
            _vary_dropout_seeds(model, member.rank)
            set_gradient_op(model.optimizer, op)

    def _stage(self, op: GradientOp) -> Stage:
        optimizer, arguments = self.model.optimizer, self._arguments
        spec = optimizer_spec(optimizer, optimizer.keras_class, self._first_iteration, 2 * self._steps_per_epoch)
        self._sent_rates, self._slots = spec.learning_rates, slot_names(spec)
        environment = {
            "tensorflow": tf.__version__, "keras": keras.__version__, "python": platform.python_version(),
            "machine": platform.machine(),
        }  # fmt: skip
        kept = optimizer.kept_slots
        return Stage(
            op.layout,
            spec,
            op.fingerprint,
            op.read(),
            environment,
            samples=arguments.epoch_samples or 1,
            lease_samples=arguments.lease_samples,
            slots=kept.vectors if kept is not None and kept.are_of(op.trained) else {},
            step=self._first_iteration,
            leases=arguments.leases,
            data=arguments.fingerprints,
            description=self._description(),
        )

    def _description(self) -> pb.FitDescription:
        arguments, steps = self._arguments, self._steps_per_epoch
        return pb.FitDescription(
            model=self.model.name,
            initial_epoch=arguments.initial_epoch,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            steps_per_epoch=steps if steps != UNKNOWN_STEPS else 0,
        )

    def complete(self, history: Any) -> None:
        """Add to a history the epochs that had ended before this worker joined."""
        first = self._arguments.initial_epoch
        for epoch, decision in enumerate(self.member.decisions, start=first):
            history.epoch.insert(epoch - first, epoch)
            for name, value in {**decision.logs, **decode_logs(decision.other_logs)}.items():
                history.history.setdefault(name, []).insert(epoch - first, value)

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch, after the callbacks of the script have begun it."""
        self.send_decision()
        self.gradient_op.begin_epoch(epoch - self._arguments.initial_epoch)
        self._training, self._decided, self._batches = True, False, 0
        if self.member.is_leader:
            self._send_rates()
            self._warned_of_sums = self._warned_of_sums or (self.member.size > 1 and warn_of_initial_sums(self.model))

    def after_batch(self) -> None:
        """Stop if the job is draining, and send a learning rate that a callback has set."""
        self._batches += 1
        if self.member.draining:
            self.model.stop_training = True
        if self.member.is_leader:
            self._send_rates()

    # ------------------------------------------------------------------ the barrier

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within this context the model is evaluated: by Keras after an epoch, or by a callback during one."""
        training, self._training = self._training, False
        try:
            yield
        finally:
            self._training = training

    def reduce_logs(self, logs: Any, result: Callable[[Any], Any]) -> Any:
        """Wait at the barrier at the end of an epoch's batches, and return the logs of all workers.

        Keras's loop calls it, also at the end of an evaluation, whose own logs it returns.

        Args:
            logs: Logs of the last batch.
            result: Keras's function from these to the logs of the epoch.
        """
        local = result(logs)
        if not self._training:
            return local
        self._training = False
        if self._arguments.leases is not None:
            self._arguments.leases.clear()
        names = sorted(name for name, value in local.items() if np.ndim(value) == 0)
        op = self.gradient_op
        weight = float(op.used or self._batches)  # a train step need not update in every epoch
        own = [float(local[name]) * weight for name in names]
        metrics = read_metrics(self.model, self.member.is_leader)
        self._values = [weight, float(op.steps), 1.0, *own, *metrics] if weight else []
        reply = self.member.await_barrier(op.epoch, self._values, bool(self.model.stop_training))
        if not self.member.is_leader or reply.HasField("decision"):
            return self._follow(reply.decision)
        sums = list(reply.sums)
        if not sums:  # no worker had a batch
            self._pull(reply.pin)
            return local
        self._steps_per_epoch = int(sums[1]) or self._steps_per_epoch
        totals, of_metrics = np.split(np.array(sums[3:]), [len(names)])
        means = {name: total / sums[0] for name, total in zip(names, totals, strict=True)}
        write_metrics(self.model, of_metrics, workers=sums[2])
        self._pull(reply.pin)
        global_logs = self.model.get_metrics_result()
        return global_logs if set(global_logs) == set(local) else {**local, **means}

    def end_epoch(self, epoch: int, logs: dict[str, Any] | None) -> None:
        """Record the logs of an epoch as the callbacks have left them."""
        self._logs = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
        others = {name: np.asarray(value) for name, value in (logs or {}).items() if name not in self._logs}
        self._other_logs = encode_logs(others)
        self._last = epoch + 1 >= self._arguments.epochs

    def send_decision(self) -> None:
        """Send, as worker 0, how training continues, once the callbacks have begun the next epoch or ended training."""
        if not self.member.is_leader or self._decided:
            return
        self._push_assigned_weights()
        self._send_rates(with_schedule=True)
        stop = bool(self.model.stop_training) or self._last
        rate = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))
        decision = pb.Decision(stop=stop, logs=self._logs, other_logs=self._other_logs, learning_rate=rate)
        self.member.decide(self.gradient_op.epoch, self._values, decision)
        self._decided = True

    def end(self) -> None:
        """End the call of `fit` with the same weights on all workers, as worker 0's callbacks have left them."""
        if self._gradient_op is None or self.member.fit_completed:
            return
        self.send_decision()
        set_gradient_op(self.model.optimizer, None)
        epoch = self.gradient_op.epoch
        reply = self.member.await_barrier(epoch, (), end_of_fit=True)
        if self.member.is_leader and not reply.HasField("decision"):
            self._push_assigned_weights()
            decision = pb.Decision(stop=True, callback_state=encode_callbacks(self._arguments.callbacks))
            self.member.decide(epoch, (), decision, end_of_fit=True)
        elif not self.member.is_leader:
            restore_callbacks(self._arguments.callbacks, reply.decision.callback_state)
        self._pull(0)
        if self.member.is_leader and self._slots:
            keep_slots(self.model.optimizer, Slots(self.gradient_op.trained, self.member.pull_slots(self._slots)))

    def _follow(self, decision: pb.Decision) -> dict[str, Any]:
        """Apply a decision of worker 0, and return the logs in it."""
        self._decided = True
        self._pull(0)
        self.model.stop_training = bool(self.model.stop_training) or decision.stop
        rate = self.model.optimizer._learning_rate
        if isinstance(rate, keras.Variable):
            rate.assign(decision.learning_rate)
        return {**decision.logs, **decode_logs(decision.other_logs)}

    def _pull(self, pin: int) -> None:
        flat, self._version = self.member.pull(pin)
        self._flat = flat.copy()
        self.gradient_op.write(self._flat)
        # A schedule depends on the updates of all workers; the optimizer has counted those of this one.
        self.model.optimizer._iterations.assign(self._first_iteration + self._version)

    def _push_assigned_weights(self) -> None:
        """Send the model's weights to the servers if a callback has assigned others."""
        now = self.gradient_op.read()
        if len(self._flat) and not np.array_equal(now, self._flat):
            self.member.assign(now)
            self._flat = now

    def _send_rates(self, with_schedule: bool = False) -> None:
        optimizer, version = self.model.optimizer, self._newest_version
        if not has_fixed_rate(optimizer) and not (
            with_schedule or self._table_ends(version) or self._rate_differs(optimizer)
        ):
            return
        self._steps_per_epoch = max(self._steps_per_epoch, version - self._version)
        rates = rates_of(optimizer, version, self._first_iteration + version, 2 * self._steps_per_epoch)
        if rates != self._sent_rates:
            self._sent_rates = rates
            self.member.set_learning_rates(rates)

    @property
    def _newest_version(self) -> int:
        """The version of the weights that this worker has pulled last, at a barrier or in a step."""
        return max(self._version, *self.member.versions[:1], 0)

    def _table_ends(self, version: int) -> bool:
        """Return whether the epoch is longer than was expected, so that the table of learning rates ends soon."""
        return version + self._steps_per_epoch // 2 > self._sent_rates.versions[-1]

    def _rate_differs(self, optimizer: Any) -> bool:
        """Return whether a function of the script now returns another rate than the table that was sent has."""
        if isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return False
        version = int(optimizer._iterations.numpy()) - self._first_iteration
        expected = float(np.interp(version, self._sent_rates.versions, self._sent_rates.rates))
        return not np.isclose(float(tf.convert_to_tensor(optimizer.learning_rate)), expected, rtol=1e-3, atol=0)


def _vary_dropout_seeds(model: keras.Model, rank: int) -> None:
    """Give each worker different random numbers, so that workers with the same initial seed drop different units."""
    for variable in model.non_trainable_variables:
        if rank and str(variable.path).endswith("seed_generator_state"):
            variable.assign(np.asarray(variable.value) + np.array([rank * 1_000_003, 0]).astype(variable.dtype))
