"""The epochs of one call of `fit` on one worker, from joining the others to the final weights, equal on all.

All workers pass three barriers in every epoch (`pb.BarrierKind`). Before the first batch, worker 0 has sent the weights
and the learning rate that its callbacks have set. After the last batch, metrics are summed over the workers, worker 0
validates, and all receive the logs. After the callbacks, which run on all workers, worker 0 decides whether to stop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
from keras.src.utils.python_utils import pythonify_logs

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.worker.fit.callback_state import Validation, encode_callbacks, encode_logs, logs_of, restore_callbacks
from downpour.worker.fit.cluster.added_gradients import warn_of_unpushed
from downpour.worker.fit.cluster.completed_fit import CompletedFit, check_can_continue
from downpour.worker.fit.cluster.script_worker import ScriptWorker
from downpour.worker.fit.fit_arguments import FirstEpoch, FitArguments
from downpour.worker.fit.local.plan_checks import gradient_op_of
from downpour.worker.fit.metrics.metric_reduction import (
    can_write_metrics,
    read_metrics,
    warn_of_initial_sums,
    write_metrics,
)
from downpour.worker.fit.metrics.spread_validation import (
    check_evaluated,
    other_values,
    sum_validation,
    validation_of,
)
from downpour.worker.fit.model_weights import ModelWeights
from downpour.worker.fit.optimizer.assignments import Assignments
from downpour.worker.fit.optimizer.gradient_op import GradientOp
from downpour.worker.fit.optimizer.train_function import TrainFunction
from downpour.worker.fit.other_variables import OtherVariables, vary_dropout_seeds
from downpour.worker.fit.rate_sender import RateSender


class PastEpoch(NamedTuple):
    """An epoch that had ended before this worker joined.

    Attributes:
        number: Its number.
        logs: Its logs.
        is_ending: Whether this is worker 0, which may have died in the callbacks at its end: the others wait for it,
            and the model has the weights of its end.
    """

    number: int
    logs: dict[str, Any]
    is_ending: bool


class Epochs:
    """The epochs of one call of `fit` on one worker.

    Attributes:
        model: The model that is trained.
        member: This worker.
        arguments: The arguments of `fit` that concern all workers.
        batches: The number of batches that this worker has trained on in this epoch.
        job_batches: The number of batches of all workers in the last epoch.
        optimizers: The optimizers of the model.
        function: The train function of the model.
        validation: The validation after the batches of this epoch; None if there was none, or no hook needs it.
    """

    def __init__(
        self, model: keras.Model, member: ScriptWorker, arguments: FitArguments, function: TrainFunction
    ) -> None:
        """Build the state of a call of `fit` that has not joined the other workers yet.

        Args:
            model: A compiled model.
            member: This worker.
            arguments: The arguments of `fit`.
            function: The train function of the model.
        """
        self.model, self.member, self.arguments, self.function = model, member, arguments, function
        self.batches = self.job_batches = 0
        self.validation: Validation | None = None
        self._gradient_op: GradientOp | None = None
        self._weights: ModelWeights | None = None
        self._others: OtherVariables | None = None
        self._completed: CompletedFit | None = None  # if this call was complete before this worker came
        self._rates: RateSender | None = None
        self._training = False  # between the first and the last batch of an epoch
        self._awaiting_logs = False  # worker 0 has the sums of the metrics, and the others wait for the logs
        self._decided: pb.Decision | None = None  # on the logs of this epoch, of another worker that validates a part
        self._validating = False  # while Keras's loop evaluates the validation data
        self._first_epoch = arguments.initial_epoch
        self._late = False  # the first epoch since this worker joined is not that of the call
        self._warned_of_sums = False
        self._rates_may_change = False  # by other means than callbacks and schedules
        self._batches = self._unpushed = 0  # of all workers: so far, and those used since the last push of each
        self.optimizers = arguments.optimizers

    @property
    def leased(self) -> bool:
        """Whether the samples are leased."""
        return self.arguments.leases is not None

    @property
    def error(self) -> Exception | None:
        """The error of a train step, of which TensorFlow raises only the message; None if there is none."""
        return self._gradient_op.error if self._gradient_op else None

    @property
    def has_begun(self) -> bool:
        """Whether the worker has read the layout of the model."""
        return self._gradient_op is not None

    @property
    def gradient_op(self) -> GradientOp:
        """The exchange of gradients and weights with the servers."""
        assert self._gradient_op is not None
        return self._gradient_op

    @property
    def weights(self) -> ModelWeights:
        """The weights of the model in this call of `fit`."""
        assert self._weights is not None
        return self._weights

    @property
    def others(self) -> OtherVariables:
        """The variables of the model that are not in the layout."""
        assert self._others is not None
        return self._others

    @property
    def rates(self) -> RateSender:
        """The learning rates of this call of `fit`."""
        assert self._rates is not None
        return self._rates

    # ------------------------------------------------------------------ begin

    def begin(self, steps: int | None) -> None:
        """Join the other workers with the model, which has been built by now.

        Args:
            steps: The number of batches of this worker in an epoch; None if it is not known.
        """
        model, member, arguments = self.model, self.member, self.arguments
        op = self.function.begin(gradient_op_of(model, self.optimizers, member, arguments.leases, arguments.assigned))
        self._gradient_op = op
        self._others = OtherVariables(model, arguments.assigned)
        self._weights = ModelWeights(op, member, arguments.callbacks)
        job_steps = arguments.job_steps or (steps and steps * member.size)
        self._rates = RateSender(self.optimizers, member, job_steps)
        self._rates_may_change = self.optimizers.rates_may_change(arguments.assigned, self.function.has_own_step)
        flat = member.enter(arguments.stage(op, model, self.rates, member), self._return_to_fit)
        if flat is None:
            self._first_epoch = member.initial_epoch
            self._completed = member.completed
            self._write_completed()
            model._initial_epoch = FirstEpoch(max(arguments.epochs, 1))  # where Keras's loop begins
        elif member.joined_late:
            # A script that was started again may resume at another epoch, by a checkpoint of its own.
            self._first_epoch = member.initial_epoch
            model._initial_epoch = FirstEpoch(self._first_epoch + len(member.decisions))
        if flat is not None:
            self.weights.write(flat.copy())
            vary_dropout_seeds(model, member.rank)
            self.optimizers.connect(op)
            self.optimizers.read_slots(op.keep_slots)
            # Worker 0 decides on an epoch that has not begun, also if it has just been started again.
            self._late = member.joined_late and (member.epoch_begun or not member.is_leader)
            if member.joined_late:
                self.optimizers.forget_sent()
                self.optimizers.set_updates(member.counts)
                self.rates.pulled()
            epochs = max(0, arguments.epochs - arguments.initial_epoch)
            member.advise(job_steps * epochs if job_steps else None, len(self.optimizers.optimizers))

    def _return_to_fit(self) -> None:
        """Set the learning rates again after servers have returned to a checkpoint, as worker 0."""
        if self.member.is_leader:
            self.rates.send_again()

    def _write_completed(self) -> None:
        """Assign the final weights of a complete call to the model, and the final state to its optimizers.

        Raises:
            Unsupported: They are not kept, or the workers have optimizers of their own.
        """
        member, completed = self.member, self._completed
        op = self.gradient_op
        try:
            check_can_continue(completed, member.rank, member.stages, op.layout.size, op.has_own_slots)
        except Unsupported as error:
            raise member.refused(error) from None
        assert completed is not None
        self.weights.write(completed.flat)
        self.others.decode(member.last.variables)
        self.optimizers.follow(member.last.learning_rates)
        self.optimizers.set_updates(completed.counts)
        self.optimizers.count_gradients()
        self.optimizers.keep(self.gradient_op.trained, lambda names: {n: completed.slots[n] for n in names})

    def past_epochs(self) -> Iterator[PastEpoch]:
        """Yield the epochs that had ended before this worker joined, for which callbacks are called again."""
        for number, decision in enumerate(self.member.decisions):
            last = self.member.is_leader and self.member.epoch_ending and number + 1 == len(self.member.decisions)
            yield PastEpoch(self._first_epoch + number, logs_of(decision), last)

    def restore_weights(self) -> None:
        """Undo what callbacks have assigned when they were called again for past epochs: the servers have it."""
        if self._weights is not None and self.member.decisions and not self.member.fit_completed:
            self._weights.restore()

    def catch_up(self, logs: Mapping[str, Any] | None = None) -> None:
        """Pass the barrier at the end of the last epoch before this worker joined, if the others have not left it.

        Args:
            logs: The logs as the callbacks have left them; None for those of the job.
        """
        if self._gradient_op is None or self.member.fit_completed or not self.member.decisions:
            return
        logs = logs_of(self.member.decisions[-1]) if logs is None else logs
        stop = self._meet(pb.EPOCH_END, len(self.member.decisions) - 1, self._decision(logs)).decision.stop
        if stop:
            self.model._initial_epoch = self.arguments.epochs

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch, for which the callbacks of worker 0 may have set weights and the learning rate."""
        number, late = epoch - self._first_epoch, self._late
        if number == 0 or self.model.run_eagerly:  # otherwise Keras has traced a step with the former values
            self.optimizers.check_arguments()
        if self._settle(pb.EPOCH_BEGIN, number, assign=not late).decision.weights_assigned:
            self.gradient_op.weights_assigned()
        if late and self.member.is_leader:
            self.rates.send_in_epoch(with_schedule=True)
        self._late = False
        self.gradient_op.begin_epoch(number)
        if self.arguments.leases is not None:
            self.arguments.leases.begin_epoch()
        if (loop := self.function.loop) is not None:
            loop.begin_epoch()
        self.others.begin_epoch()
        self._training, self.batches = True, 0
        if self.member.is_leader:
            self._warned_of_sums = self._warned_of_sums or (self.member.size > 1 and warn_of_initial_sums(self.model))

    @property
    def ahead(self) -> int:
        """The number of batches after the first one that the last call of the train function has trained on."""
        loop = self.function.loop
        return loop.ahead if loop is not None else 0

    def begin_call(self, single: bool) -> None:
        """Begin a call of the train function.

        Args:
            single: Whether it must train on one batch, because callbacks have batch hooks.
        """
        loop = self.function.loop
        if loop is not None:
            loop.begin_call(single or self._rates_may_change)

    def send_assigned(self, assigned: Assignments) -> None:
        """Send, as worker 0, the weights that batch hooks of callbacks have assigned."""
        if self.member.is_leader:
            self.gradient_op.send(assigned)

    def after_batch(self, last: int) -> None:
        """Stop if the job is draining, and send a learning rate that a callback has set.

        Args:
            last: The number of this worker's last batch in this epoch.
        """
        self.batches = last + 1
        if self.member.draining:
            self.model.stop_training = True
        if self.model.stop_training and self.arguments.leases is not None:
            self.arguments.leases.end_epoch()  # the thread that reads the data may wait for a lease
        if self.member.is_leader:
            self.rates.send_in_epoch()

    # ------------------------------------------------------------------ the end of an epoch

    @contextmanager
    def evaluating(self, validating: bool) -> Iterator[None]:
        """Within this context the model is evaluated.

        Args:
            validating: Whether Keras's loop evaluates the validation data, rather than a callback any data.
        """
        before = self._training, self._validating
        self._training, self._validating = False, validating
        try:
            yield
        finally:
            self._training, self._validating = before

    @property
    def spreads_validation(self) -> bool:
        """Whether each worker evaluates a part of the validation data."""
        return self.arguments.validation is not None

    def validation_of_others(self) -> dict[str, Any] | None:
        """Return the logs of the validation of this epoch if this worker has no part of it, else None."""
        parts = self.arguments.validation
        if self._awaiting_logs and parts is not None and not parts.has_part(self.member.rank):
            self._await_decision(pb.BarrierRequest(validated=True))
        return None if self._decided is None else validation_of(logs_of(self._decided))

    def reduce_logs(self, logs: Any, result: Callable[[Any], Any]) -> Any:
        """Wait at the barrier at the end of an epoch's batches, and return the logs of all workers.

        Keras's loop calls it, also at the end of an evaluation, whose own logs it returns.

        Args:
            logs: Logs of the last batch.
            result: Keras's function from these to the logs of the epoch.
        """
        local = result(logs)
        if not self._training:
            return self._validated(local) if self._validating else local
        self._training = False
        if self.member.draining:  # also in an epoch for which no samples were leased
            self.model.stop_training = True
        self.gradient_op.finish()
        if self.arguments.leases is not None:
            self.arguments.leases.end_epoch()
            self.arguments.leases.clear()
        local = pythonify_logs(local)
        names = sorted(name for name, value in local.items() if np.ndim(value) == 0)
        op = self.gradient_op
        weight = float(op.used or self.batches)  # a train step need not update in every epoch
        own = [float(local[name]) * weight for name in names]
        unpushed = self.arguments.leases.unpushed if self.arguments.leases is not None else 0
        counts = [weight, float(op.steps), float(self.batches), float(unpushed), 1.0]
        others = self.others.added()
        values = [*counts, *others, *own, *read_metrics(self.model, self.member.is_leader)] if self.batches else []
        own_part = pb.BarrierRequest(until_complete=self._validates_next(op.epoch))
        names_sent = names if self.batches else ()
        reply = self._meet(pb.EPOCH_METRICS, op.epoch, values=values, names=names_sent, own=own_part)
        self.job_batches = int(reply.sums[2]) if reply.sums else 0
        if self.member.fit_completed:  # while this worker was away
            self.job_batches = self.arguments.job_steps or 0
        if reply.sums:
            self.others.add_all(reply.sums[len(counts) : len(counts) + len(others)])
        self.others.decode(reply.decision.variables)
        if reply.HasField("decision"):
            self.validation = Validation.decode(reply.decision.callback_state)
            self._pull(0)
            self._decided = reply.decision if self.spreads_validation else None
            return logs_of(reply.decision)
        self._awaiting_logs = True
        return self._reduced(reply, local)

    def _validates_next(self, number: int) -> bool:
        """Return whether workers evaluate their parts after an epoch, before worker 0 unpins the weights."""
        parts = self.arguments.validation
        return parts is not None and bool(self.model._should_eval(self._first_epoch + number, parts.frequency))

    def _validated(self, local: dict[str, Any]) -> dict[str, Any]:
        """Return the logs of the validation by all workers, each of which has evaluated its part by now."""
        parts = self.arguments.validation
        if parts is None or not self._awaiting_logs:
            return local
        check_evaluated(self.model, has_assigned=self.weights.assigned() is not None)
        request = pb.BarrierRequest(validated=True, validation=read_metrics(self.model, is_leader=True))
        if not self.member.is_leader:
            return validation_of(logs_of(self._await_decision(request)))
        reply = self._meet(pb.EPOCH_METRICS, self.gradient_op.epoch, own=request)
        return sum_validation(self.model, parts, reply, self.member.size)

    def _await_decision(self, own: pb.BarrierRequest) -> pb.Decision:
        """Wait, as another worker than 0, for the logs of an epoch, of which this worker has validated its part."""
        self._awaiting_logs = False
        self._decided = self._meet(pb.EPOCH_METRICS, self.gradient_op.epoch, own=own).decision
        changed = self.others.decode(self._decided.variables)
        if own.validation and changed:
            raise other_values(changed)
        self._pull(0)
        return self._decided

    def _reduced(self, reply: pb.BarrierReply, local: dict[str, Any]) -> dict[str, Any]:
        """Return the logs of all workers, which worker 0 may have no batch of: it has been started again, perhaps."""
        self._pull(reply.pin)
        sums, names = list(reply.sums), list(reply.names)
        if not sums:  # no worker had a batch, because the job has begun to drain; Keras would report 0.0
            return {name: math.nan if np.ndim(value) == 0 else value for name, value in local.items()}
        weight, updates, batches, unpushed, workers = sums[:5]
        self._batches, self._unpushed = self._batches + int(batches), int(unpushed)
        self.rates.expect(int(updates))
        totals, of_metrics = np.split(np.array(sums[5 + self.others.size :]), [len(names)])
        means = {name: total / weight for name, total in zip(names, totals, strict=True)}
        if not can_write_metrics(self.model, of_metrics):  # they are built by the first batch of a process
            return {**local, **means}
        own = pythonify_logs(self.model.get_metrics_result())
        write_metrics(self.model, of_metrics, workers=workers)
        global_logs = pythonify_logs(self.model.get_metrics_result())
        if set(global_logs) == set(local) | set(means):
            return global_logs
        # A train step that returns more than the metrics may name something else like one of them.
        same = [name for name in global_logs if name in means and name in local and own.get(name) == local[name]]
        return {**local, **means, **{name: global_logs[name] for name in same}}

    def validated(self, validation: Validation) -> None:
        """Record a validation, as worker 0, for the hooks of the callbacks of the other workers."""
        self.validation = validation

    def share_logs(self, logs: dict[str, Any]) -> None:
        """Send the logs of an epoch, as worker 0, once it has validated; the others receive them."""
        if self._awaiting_logs and not self.member.is_leader:  # Keras has evaluated nothing
            self._await_decision(pb.BarrierRequest(validated=True))
        if self._decided is not None:
            logs.clear()
            logs.update(logs_of(self._decided))
            self._decided = None
        elif self._awaiting_logs:
            self._awaiting_logs = False
            validation = self.validation.encode() if self.validation is not None else ""
            self.validation = None
            decision = self._decision(logs, variables=self.others.encode(), callback_state=validation)
            self._meet(pb.EPOCH_METRICS, self.gradient_op.epoch, decision)

    def end_epoch(self, logs: dict[str, Any] | None) -> None:
        """End an epoch after the callbacks: with the same logs on all workers, and the decision whether to stop."""
        decision = self._meet(pb.EPOCH_END, self.gradient_op.epoch, self._decision(logs or {})).decision
        self.model.stop_training = decision.stop
        if logs is not None and not self.member.is_leader:
            logs.clear()
            logs.update(logs_of(decision))

    def end(self) -> None:
        """End the call of `fit` with the same weights on all workers, as worker 0's callbacks have left them."""
        if self._gradient_op is None:
            return
        if self.member.fit_completed:
            restore_callbacks(self.arguments.callbacks, self.member.last.callback_state)
            self._completed = self._completed or self.member.completed
            self._write_completed()  # as callbacks have left it then
            return
        if (leases := self.arguments.leases) is not None and self.member.is_leader and self._adds_up:
            warn_of_unpushed(self._batches, self._unpushed, leases.batches_per_push, leases.added_earlier)
        self.others.end()
        callbacks, is_leader = self.arguments.callbacks, self.member.is_leader
        state = encode_callbacks(callbacks) if is_leader else ""
        reply = self._settle(pb.FIT_END, self.gradient_op.epoch, callback_state=state)
        self.optimizers.connect(None)
        if not is_leader:
            restore_callbacks(callbacks, reply.decision.callback_state)
        self._pull(0)
        self.optimizers.count_gradients()
        if is_leader or self.gradient_op.has_own_slots:
            self.gradient_op.keep_slots()
        else:
            self.optimizers.keep_elsewhere(self.gradient_op.trained, self.member.pull_slots)

    @property
    def _adds_up(self) -> bool:
        """Whether gradients of several batches are added up for an update, rather than left out."""
        assigned = self.arguments.assigned
        return self.gradient_op.accumulates or (assigned is not None and assigned.has_sums)

    # ------------------------------------------------------------------ barriers

    def _meet(
        self,
        kind: pb.BarrierKind,
        epoch: int,
        decision: pb.Decision | None = None,
        values: Sequence[float] = (),
        names: Sequence[str] = (),
        prepare: Callable[[], None] | None = None,
        own: pb.BarrierRequest | None = None,
    ) -> pb.BarrierReply:
        """Pass a barrier, as worker 0 with a decision unless the values of the others are needed for it.

        Each session begins with `prepare`: what was sent in an earlier one may be lost.
        """
        request = pb.BarrierRequest(kind=kind, epoch=epoch, values=values, names=names)
        request.MergeFrom(own or pb.BarrierRequest())
        request.stop = bool(self.model.stop_training)
        if decision is not None and self.member.is_leader:
            request.decision.CopyFrom(decision)
        return self.member.await_barrier(request, prepare)

    def _decision(self, logs: Mapping[str, Any] | None = None, **fields: Any) -> pb.Decision:
        stop, rates = bool(self.model.stop_training), self.optimizers.learning_rates
        return pb.Decision(stop=stop, learning_rates=rates, **encode_logs(logs or {}), **fields)

    def _settle(self, kind: pb.BarrierKind, epoch: int, assign: bool = True, **fields: Any) -> pb.BarrierReply:
        """Pass a barrier after which all workers have the weights and the learning rate of worker 0's callbacks."""
        assigned, is_leader = self.weights.assigned(), self.member.is_leader
        sends = is_leader and assign and assigned is not None

        def prepare() -> None:
            if is_leader and assign:
                if assigned is not None:
                    self.weights.send(assigned)
                self.rates.send(with_schedule=True)

        decision = self._decision(**fields, weights_assigned=sends, variables=self.others.encode())
        reply = self._meet(kind, epoch, decision, prepare=prepare)
        if not is_leader:
            self.others.decode(reply.decision.variables)
        if not is_leader or not assign:
            self.optimizers.follow(reply.decision.learning_rates)
            if assigned is not None or reply.decision.weights_assigned:
                self._pull(0)
            if assigned is not None and not is_leader and assign:
                self.weights.warn_of(assigned)
        return reply

    def _pull(self, pin: int) -> None:
        # A schedule depends on the updates of all workers; an optimizer has counted those of this one.
        self.optimizers.set_updates(self.weights.pull(pin))
        self.rates.pulled()
