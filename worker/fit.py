"""What `model.fit` becomes in a script that `downpour run` has started: one loop of Keras in every worker.

Each worker trains on its part of the data. At the end of every epoch all live workers meet: metrics are summed over
them, worker 0 takes the weights, validates, runs the callbacks and says how it goes on.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow import trainer as keras_trainer

from protos import parameter_server_pb2 as pb
from protos.errors import Unsupported
from worker.carried import carried_of, rates_of, slot_names
from worker.member import Member, Stage
from worker.optimizer import keep, set_wire
from worker.sharding import part_of, peek, steps_of, validation_split
from worker.slots import Slots
from worker.wire import Wire

UNKNOWN_STEPS = 10_000  # in an epoch, until the first one has been counted


def distributed_fit(fit: Callable[..., Any], model: keras.Model, member: Member, given: dict[str, Any]) -> Any:
    """Trains a model together with the other workers; returns the history, the same on all.

    Args:
        fit: Keras's own.
        model: Compiled with a distributed optimizer.
        member: This worker.
        given: All arguments of `fit` but the model.

    Raises:
        DownpourError: As the servers said.
        Diverged: Too many gradients in a row were not finite.
    """
    leased = given["x"] if hasattr(given["x"], "of_worker") else None
    given["x"] = build(model, given["x"])
    epochs = Epochs(model, member, given["initial_epoch"], given["epochs"], leased)
    arguments = _own_part(given, member)
    arguments["callbacks"] = [First(epochs), *_users(given["callbacks"], member), Last(epochs)]
    failure = ""
    try:
        with epochs.attached():
            history = fit(model, **arguments)
        epochs.complete(history)
        # Worker 0 alone has validated and run callbacks, which may have drawn random numbers; what the script builds
        # or shuffles from here on is to be the same everywhere again.
        keras.utils.set_random_seed((member.seed + member.stages) % 2**32)
        return history
    except Exception as error:
        cause = epochs.error or error
        failure = str(cause) or type(cause).__name__
        if cause is not error:
            raise cause from None
        raise
    finally:
        member.leave(failure)


def build(model: keras.Model, x: Any) -> Any:
    """Makes the weights of a model exist that has not seen data yet; returns the data."""
    if model.built:
        return x
    inputs, x = x.peek() if hasattr(x, "of_worker") else peek(x)
    try:
        model(keras.tree.map_structure(tf.convert_to_tensor, inputs), training=False)
    # A model with a train_step of its own need not be callable; weights that appear later are refused then.
    except Exception:
        if not model.trainable_variables:
            raise
    return x


def _own_part(given: dict[str, Any], member: Member) -> dict[str, Any]:
    """The arguments with this worker's part of the data; what is seen, worker 0 does alone."""
    rank, size = member.rank, member.size
    own = dict(given)
    if given["validation_split"] and given["validation_data"] is None:
        whole = (given["x"], given["y"], given["sample_weight"])
        (own["x"], own["y"], own["sample_weight"]), own["validation_data"] = validation_split(
            *whole, given["validation_split"]
        )
    own["validation_split"] = 0.0
    if hasattr(own["x"], "of_worker"):
        own["x"], own["shuffle"] = own["x"].of_worker(member), False
    else:
        for name in ("x", "y", "sample_weight"):
            own[name] = part_of(own[name], rank, size)
        own["steps_per_epoch"] = steps_of(given["steps_per_epoch"], rank, size)
    if not member.leads:
        own["validation_data"], own["verbose"] = None, 0
    return own


def _users(callbacks: Any, member: Member) -> list[Any]:
    """The script's callbacks, on worker 0.

    Raises:
        Unsupported: One of them goes on from weights that the servers do not have.
    """
    if callbacks is None or not member.leads:
        return []
    listed = list(getattr(callbacks, "callbacks", callbacks) if not isinstance(callbacks, keras.callbacks.Callback)
                  else [callbacks])  # fmt: skip
    for callback in listed:
        if isinstance(callback, keras.callbacks.BackupAndRestore | keras.callbacks.SwapEMAWeights):
            raise Unsupported(
                f"fit must be without {type(callback).__name__}, whose weights or counters live in one process. "
                "Use ModelCheckpoint."
            )
    return listed


class Epochs:
    """The epochs of one call of `fit` on one worker.

    Attributes:
        model: That is trained.
        member: This worker.
        error: What went wrong below TensorFlow.
    """

    def __init__(self, model: keras.Model, member: Member, first: int, epochs: int, leased: Any = None) -> None:
        """Joins nothing yet.

        Args:
            model: Compiled.
            member: This worker.
            first: `initial_epoch` of `fit`.
            epochs: `epochs` of `fit`.
            leased: A LeasedDataset, if there is one.
        """
        self._leased = leased
        self.model, self.member = model, member
        self._first, self._epochs = first, epochs
        self._wire: Wire | None = None
        self._training = False  # between the first and the last batch of an epoch
        self._values: list[float] = []
        self._decided = True  # worker 0 has said how the epoch before goes on
        self._logs: dict[str, float] = {}  # of that epoch, as callbacks saw them
        self._last = False  # there is none after it
        self._told = pb.Rates()
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
    def wire(self) -> Wire:
        """To the servers."""
        assert self._wire is not None
        return self._wire

    def attached(self) -> Attached:
        """A context in which Keras's loop calls this object."""
        return Attached(self)

    # ------------------------------------------------------------------ begin

    def begin(self, steps: int | None) -> None:
        """Joins the others with the model that has just been built.

        Args:
            steps: Batches of this worker in an epoch, where they are known.
        """
        model, member = self.model, self.member
        if steps:
            self._steps_per_epoch = steps * member.size
        self._wire = wire = Wire(model, model.optimizer, member)
        self._begun = int(model.optimizer._iterations.numpy())
        carried = carried_of(model.optimizer, model.optimizer.plain, self._begun, 2 * self._steps_per_epoch)
        self._told, self._slots = carried.rates, slot_names(carried)
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
            for name, value in decision.logs.items():
                history.history.setdefault(name, []).insert(epoch - self._first, value)

    def begin_epoch(self, epoch: int) -> None:
        """Counts anew, once the script's callbacks have begun it too."""
        self.settle()
        self.wire.begin_epoch(epoch - self._first)
        self._training, self._decided = True, False
        if self.member.leads:
            self._tell_rates()

    def after_batch(self) -> None:
        """Stops where another worker, or a person, wants it; passes on a learning rate that a callback has set."""
        if self.member.draining:
            self.model.stop_training = True
        if self.member.leads:
            self._tell_rates()

    # ------------------------------------------------------------------ the meeting

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
        self._values = [used, float(self.wire.steps), *own, *_read_metrics(self.model)] if self.wire.steps else []
        reply = self.member.meet(self.wire.epoch, self._values, bool(self.model.stop_training))
        if not self.member.leads or reply.HasField("decision"):
            return self._obey(reply.decision)
        sums = list(reply.sums)
        self._steps_per_epoch = int(sums[1]) or self._steps_per_epoch
        means = {name: total / sums[0] for name, total in zip(names, sums[2:], strict=False)}
        _write_metrics(self.model, np.array(sums[2 + len(names) :]))
        self._take(reply.pin)
        of_metrics = self.model.get_metrics_result()
        return of_metrics if set(of_metrics) == set(local) else {**local, **means}

    def end_epoch(self, epoch: int, logs: dict[str, Any] | None) -> None:
        """Notes what worker 0's callbacks have made of the epoch."""
        self._logs = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
        self._last = epoch + 1 >= self._epochs

    def settle(self) -> None:
        """Says, as worker 0, how it goes on: once the callbacks have begun the next epoch, or ended training."""
        if not self.member.leads or self._decided:
            return
        self._give_back()
        self._tell_rates(ahead=True)
        stop = bool(self.model.stop_training) or self._last
        decision = pb.Decision(stop=stop, logs=self._logs, learning_rate=_rate_now(self.model.optimizer))
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
            self.member.decide(self.wire.epoch, (), pb.Decision(stop=True), farewell=True)
        self._take(0)
        if self.member.leads and self._slots:
            keep(self.model.optimizer, Slots(self.wire.trained, self.member.slots(self._slots)))

    def _obey(self, decision: pb.Decision) -> dict[str, float]:
        self._decided = True
        self._take(0)
        self.model.stop_training = bool(self.model.stop_training) or decision.stop
        rate = self.model.optimizer._learning_rate
        if isinstance(rate, keras.Variable):
            rate.assign(decision.learning_rate)
        return dict(decision.logs)

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


class _Lent(keras_trainer.TFEpochIterator):
    """Keras takes the batches of the first epoch for the number of all; of leases there may be more or fewer."""

    @contextmanager
    def catch_stop_iteration(self) -> Iterator[None]:
        """The end of an epoch."""
        try:
            yield
            self.tf_sync()
        except (StopIteration, tf.errors.OutOfRangeError):
            self._current_iterator = None
            self.data_adapter.on_epoch_end()


class Attached:
    """Context: the model's train step and its metrics are seen by `Epochs`, XLA is off."""

    def __init__(self, epochs: Epochs) -> None:
        """Changes nothing yet."""
        self._epochs, self._model, self._keras = epochs, epochs.model, keras_trainer

    def __enter__(self) -> None:
        """Wraps two methods of this one model."""
        model, epochs = self._model, self._epochs
        train_step, result = model.train_step, model._get_metrics_result_or_logs

        def counted_train_step(data: Any) -> Any:
            wire = epochs.wire
            wire.loss, wire.samples = None, tf.shape(keras.tree.flatten(data)[0])[0]
            return train_step(data)

        model.train_step = counted_train_step
        model._get_metrics_result_or_logs = lambda logs: epochs.end_of_batches(logs, result)
        if epochs.leased:
            self._keras.TFEpochIterator = _Lent
        model.jit_compile = False  # XLA cannot call out to the servers
        model.train_function = None

    def __exit__(self, *reason: object) -> None:
        """Puts Keras's own back."""
        model = self._model
        self._keras.TFEpochIterator = _Lent.__base__
        del model.train_step, model._get_metrics_result_or_logs
        model.train_function = None
        model._initial_epoch = 0
        set_wire(model.optimizer, None)


class First(keras.callbacks.Callback):
    """Runs before the script's callbacks."""

    def __init__(self, epochs: Epochs) -> None:
        """Tells `epochs`."""
        super().__init__()
        self._epochs = epochs

    def on_train_begin(self, logs: Any = None) -> None:
        """The model is built."""
        self._epochs.begin((self.params or {}).get("steps"))


class Last(keras.callbacks.Callback):
    """Runs after the script's callbacks."""

    def __init__(self, epochs: Epochs) -> None:
        """Tells `epochs`."""
        super().__init__()
        self._epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """An epoch; a callback may have set its learning rate."""
        self._epochs.begin_epoch(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """A batch, or several with `steps_per_execution`."""
        self._epochs.after_batch()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Validation and callbacks are done."""
        self._epochs.end_epoch(epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        """The last callback has had its say."""
        self._epochs.end()


def _metric_variables(model: keras.Model) -> list[Any]:
    return [variable for variable in model.metrics_variables if tf.as_dtype(variable.dtype).is_floating
            or tf.as_dtype(variable.dtype).is_integer]  # fmt: skip


def _read_metrics(model: keras.Model) -> list[float]:
    """What the model's metrics have gathered: sums and counts, which add up over workers."""
    values = [np.asarray(v.value, np.float64).ravel() for v in _metric_variables(model)]
    return np.concatenate(values).tolist() if values else []


def _write_metrics(model: keras.Model, flat: np.ndarray) -> None:
    at = 0
    for variable in _metric_variables(model):
        size = int(np.prod(variable.shape))
        variable.assign(np.asarray(flat[at : at + size]).reshape(variable.shape).astype(variable.dtype))
        at += size


def _rate_now(optimizer: Any) -> float:
    return float(tf.convert_to_tensor(optimizer.learning_rate))


def _spread_seeds(model: keras.Model, rank: int) -> None:
    """Workers that built the same model from one seed drop out different units."""
    for variable in model.non_trainable_variables:
        if rank and str(variable.path).endswith("seed_generator_state"):
            variable.assign(np.asarray(variable.value) + np.array([rank * 1_000_003, 0]).astype(variable.dtype))
