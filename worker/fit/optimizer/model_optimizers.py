"""The distributed optimizers of one model: which weights each of them trains, their rates, slots and update counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import keras
import numpy as np
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.protos.layout import UpdateFlags
from downpour.worker.fit.cluster.stage import UpdateCounts
from downpour.worker.fit.optimizer.assignments import Assignments
from downpour.worker.fit.optimizer.distributed_optimizer import (
    DistributedMixin,
    DistributedOptimizer,
    set_gradient_op,
)
from downpour.worker.fit.optimizer.loss_scale import innermost
from downpour.worker.fit.optimizer.optimizer_checks import check_supported
from downpour.worker.fit.optimizer.optimizer_slots import Slots
from downpour.worker.fit.optimizer.optimizer_spec import (
    has_fixed_rate,
    hyperparameters_of,
    initial_slots,
    keras_class_of,
    optimizer_spec,
    rates_of,
    updates_of,
)
from downpour.worker.fit.optimizer.weight_checks import constraint_of
from downpour.worker.fit.optimizer.whole_state import drop_slots, keep_slots, kept_slots_of, set_slot_source

MOST_SLOT_BYTES = 1 << 28  # which workers other than 0 keep between two calls of fit, for scripts that read them
Applied = Mapping[int, tuple[Any, Mapping[int, Any]]]  # optimizers and their variables by id


class KeptCounts(NamedTuple):
    """The updates of an optimizer when `fit` ended, and the gradients that they used, which its iterations count."""

    updates: int
    gradients: int


class ModelOptimizers:
    """The optimizers of a model during one call of `fit`, in the order of the layout's indices.

    Attributes:
        optimizers: The optimizers, which are distributed.
        extra: The variables outside of the model that they train.
        local: The optimizer of Keras that makes local steps on this worker; None if the servers make every step.
    """

    def __init__(self, optimizers: Sequence[Any], owners: Mapping[int, int] | None = None, extra: Sequence[Any] = ()):
        """Combine the optimizers of one model.

        Args:
            optimizers: The optimizers.
            owners: The index of the optimizer of each variable by the `id` of the variable; 0 for others.
            extra: The variables outside of the model that they train.
        """
        self.optimizers, self.extra = list(optimizers), list(extra)
        self._owners = dict(owners or {})
        self.local: Any = None
        self._sent: list[pb.LearningRates] = []
        self._of_epoch: list[pb.LearningRates] = []  # as they were sent at the last barrier
        self._updates: list[int] = []  # of each optimizer, at the last barrier
        self._gradients: list[int] = []  # that these used
        self._initial: list[dict[str, float]] = []  # values of the slots of each optimizer
        self._arguments: list[dict[str, float]] = []  # of each optimizer, as the servers have them

    def index_of(self, optimizer: Any) -> int:
        """Return the index of an optimizer.

        Raises:
            Unsupported: It is none of these.
        """
        for index, each in enumerate(self.optimizers):
            if each is optimizer:
                return index
        raise _unknown(optimizer)

    def owner_of(self, variable: Any) -> int:
        """Return the index of the optimizer that trains a variable."""
        return self._owners.get(id(variable), 0)

    def flags_of(self, variable: Any) -> UpdateFlags:
        """Return how a variable is updated."""
        optimizer = self.optimizers[self.owner_of(variable)]
        # Keras compares the name of TensorFlow's variable with those that are excluded.
        decays = not optimizer.weight_decay or optimizer._use_weight_decay(variable.value)
        overwrites = bool(getattr(variable, "overwrite_with_gradient", False))
        if overwrites and optimizer.gradient_accumulation_steps:
            raise Unsupported(
                "a variable that is overwritten with its gradient must have an optimizer without "
                f"gradient_accumulation_steps. Received: {variable.path} with {optimizer.name}. Leave the argument out."
            )
        return UpdateFlags(self.owner_of(variable), bool(decays), overwrites, constraint_of(variable))

    def connect(self, gradient_op: Any) -> None:
        """Connect all optimizers to the servers, or disconnect them with None."""
        for optimizer in self.optimizers:
            set_gradient_op(optimizer, gradient_op)

    def read_slots(self, fetch: Callable[[], None] | None) -> None:
        """Set how the slots are fetched from the servers when a model is saved during `fit`; None afterwards."""
        for optimizer in self.optimizers:
            set_slot_source(optimizer, None if fetch is None else partial(_fetched, optimizer, fetch))

    def step_locally(self, optimizer: Any) -> None:
        """Let an optimizer of Keras make the steps on this worker."""
        self.local = optimizer

    def refuse(self, optimizer: Any, variables: Sequence[Any], trained: Sequence[Any]) -> None:
        """Raise Unsupported if an optimizer that is not distributed is applied to a variable that the servers train."""
        if optimizer is self.local:
            return
        if {id(variable) for variable in trained}.intersection(map(id, variables)):
            raise _unknown(optimizer)

    def check_every_batch_is_pushed(self) -> None:
        """Raise Unsupported if an optimizer accumulates gradients, while the samples of each push are leased."""
        for optimizer in self.optimizers:
            if optimizer.gradient_accumulation_steps:
                raise Unsupported(
                    "leased batches must be pushed one by one. Received: an optimizer with "
                    f"gradient_accumulation_steps={optimizer.gradient_accumulation_steps}. Use a larger batch size."
                )

    @property
    def added_up(self) -> tuple[int, int]:
        """The number of batches whose gradients an optimizer adds up for a push, and of those that it has by now.

        Both are 0 if every optimizer is applied to the gradients of each batch.
        """
        steps = [each.gradient_accumulation_steps or 0 for each in self.optimizers]
        each = max(steps, default=0)
        return each, int(self.optimizers[steps.index(each)]._iterations.numpy()) % each if each else 0

    # ------------------------------------------------------------------ what a worker registers

    def specs(self, steps: int) -> list[pb.OptimizerSpec]:
        """Return the specifications for the servers; the tables of rates are exact for so many updates to come."""
        gradients = [updates_of(optimizer) for optimizer in self.optimizers]
        for optimizer, count in zip(self.optimizers, gradients, strict=True):
            kept = getattr(optimizer, "kept_counts", None)
            if kept is not None and kept.gradients == count:
                _assign_count(optimizer, kept.updates)
        specs = [
            optimizer_spec(optimizer, optimizer.keras_class, updates_of(optimizer), steps, count)
            for optimizer, count in zip(self.optimizers, gradients, strict=True)
        ]
        self._gradients = gradients
        self._sent = self._of_epoch = [spec.learning_rates for spec in specs]
        self._updates = [spec.updates for spec in specs]
        self._initial = [initial_slots(spec) for spec in specs]
        self._arguments = [_arguments_of(optimizer) for optimizer in self.optimizers]
        return specs

    def check_arguments(self) -> None:
        """Check that no callback has set an argument of an optimizer which the servers have received already.

        Raises:
            Unsupported: An argument has another value than when `fit` began.
        """
        for optimizer, before in zip(self.optimizers, self._arguments, strict=True):
            changed = [name for name, value in _arguments_of(optimizer).items() if before.get(name) != value]
            if changed:
                raise Unsupported(
                    f"the arguments of an optimizer must be set before fit, apart from its learning rate. Received: "
                    f"{changed[0]} = {_arguments_of(optimizer)[changed[0]]:g}, set within fit, "
                    f"{before.get(changed[0], 0.0):g} before. Use a call of fit for each value."
                )

    def slot_vectors(self, variables: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return the slots of variables as vectors by name, `float32[n]`; none if no optimizer has been used before.

        A variable that an optimizer has not trained yet has the initial value of its slots.
        """
        if all(kept_slots_of(optimizer) is None for optimizer in self.optimizers):
            return {}
        names = dict.fromkeys(name for initial in self._initial for name in initial)
        return {name: np.concatenate([self._slot(name, variable) for variable in variables]) for name in names}

    def _slot(self, name: str, variable: Any) -> np.ndarray:
        owner = self.owner_of(variable)
        kept = kept_slots_of(self.optimizers[owner])
        found = None if kept is None else kept.get(name, variable)
        size = int(np.prod(variable.shape))
        return np.full(size, self._initial[owner].get(name, 0.0), np.float32) if found is None else found

    def keep(self, variables: Sequence[Any], pull: Callable[[Sequence[str]], Mapping[str, np.ndarray]]) -> None:
        """Keep the slots that the servers have in each optimizer, besides those of variables that are frozen now."""
        names = list(dict.fromkeys(name for initial in self._initial for name in initial))
        vectors = pull(names) if names else {}
        for index, (optimizer, initial) in enumerate(zip(self.optimizers, self._initial, strict=True)):
            if initial:
                own = [self.owner_of(variable) == index for variable in variables]
                fresh = Slots(variables, {name: vectors[name] for name in initial}).of(own)
                kept = kept_slots_of(optimizer)
                keep_slots(optimizer, fresh if kept is None else kept.updated(fresh))

    def keep_elsewhere(
        self, variables: Sequence[Any], pull: Callable[[Sequence[str]], Mapping[str, np.ndarray]]
    ) -> None:
        """Keep the slots on a worker other than 0, where only the script may read them, unless they are large."""
        names = {name for initial in self._initial for name in initial}
        size_bytes = 4 * len(names) * sum(int(np.prod(variable.shape)) for variable in variables)
        if size_bytes <= MOST_SLOT_BYTES or any(optimizer.shown is not None for optimizer in self.optimizers):
            self.keep(variables, pull)
        else:
            for optimizer in self.optimizers:
                drop_slots(optimizer)

    # ------------------------------------------------------------------ rates and counts

    def new_rates(self, steps: int, newer: int, with_schedule: bool) -> list[pb.LearningRates]:
        """Return the tables of learning rates, one for each optimizer; none if they are those that were sent last.

        Args:
            steps: The number of updates to come for which the tables are exact.
            newer: The number of updates, by all workers, since `set_updates`.
            with_schedule: Whether schedules are evaluated anew; otherwise only tables that end soon, and rates that may
                have been assigned.
        """
        tables = list(self._sent)
        for index, (optimizer, sent) in enumerate(zip(self.optimizers, self._sent, strict=True)):
            ends = not has_fixed_rate(optimizer) and self._updates[index] + newer + steps // 4 > sent.updates[-1]
            if with_schedule or ends or _may_differ(optimizer, sent):
                # The updates of this optimizer are at least those that this worker knows.
                tables[index] = rates_of(optimizer, updates_of(optimizer), newer + steps)
        if with_schedule:
            self._of_epoch = tables
        if tables == self._sent:
            return []
        self._sent = tables
        return tables

    def rates_may_change(self, assigned: Assignments | None, own_step: bool) -> bool:
        """Return whether a learning rate may change between two batches, other than by callbacks and schedules.

        Args:
            assigned: The variables that the train step assigns; None if they are not known.
            own_step: Whether the train step is not that of Keras, which assigns no rate.
        """
        known = keras.Variable | keras.optimizers.schedules.LearningRateSchedule
        rates = [optimizer._learning_rate for optimizer in self.optimizers]
        if not all(isinstance(rate, known) for rate in rates):
            return True
        return own_step and (assigned is None or any(rate in assigned for rate in rates))

    def forget_sent(self) -> None:
        """Send the tables again at the next occasion: the servers have those of an earlier process of this worker."""
        self._sent = [pb.LearningRates(updates=[0], rates=[-1.0]) for _ in self.optimizers]

    def rates_since_barrier(self) -> list[pb.LearningRates]:
        """Return tables of learning rates, one for each optimizer, that hold for all updates since the last barrier."""
        pairs = zip(self.optimizers, self._of_epoch, strict=True)
        self._sent = [rates_of(optimizer, 0, 0) if has_fixed_rate(optimizer) else table for optimizer, table in pairs]
        return list(self._sent)

    @property
    def learning_rates(self) -> list[float]:
        """The present learning rate of each optimizer."""
        return [float(tf.convert_to_tensor(optimizer.learning_rate)) for optimizer in self.optimizers]

    def follow(self, learning_rates: Sequence[float]) -> None:
        """Assign the learning rates that worker 0 uses, where they are numbers."""
        for optimizer, rate in zip(self.optimizers, learning_rates, strict=False):
            if has_fixed_rate(optimizer):
                optimizer._learning_rate.assign(rate)

    def set_updates(self, counts: UpdateCounts) -> None:
        """Set the number of updates that each optimizer has made, those of all workers together."""
        self._updates, self._gradients = list(counts.updates), list(counts.gradients)
        for optimizer, count in zip(self.optimizers, counts.updates, strict=True):
            _assign_count(optimizer, count)

    def count_gradients(self) -> None:
        """Let each optimizer count the gradients of all workers, as `fit` ends: one process makes an update of each."""
        for optimizer, updates, gradients in zip(self.optimizers, self._updates, self._gradients, strict=True):
            object.__setattr__(optimizer, "kept_counts", KeptCounts(updates, gradients))  # Keras does not track it
            _assign_count(optimizer, gradients)


def _assign_count(optimizer: Any, count: int) -> None:
    batches = optimizer.gradient_accumulation_steps or 1
    # Keras counts batches; those since the last update are this worker's own.
    optimizer._iterations.assign(count * batches + int(optimizer._iterations.numpy()) % batches)


def _arguments_of(optimizer: Any) -> dict[str, float]:
    base = keras_class_of(optimizer.keras_class)
    return {} if base is None else hyperparameters_of(optimizer, base)


def _fetched(optimizer: Any, fetch: Callable[[], None]) -> Slots | None:
    fetch()
    return cast("Slots | None", optimizer.kept_slots)


def _may_differ(optimizer: Any, sent: pb.LearningRates) -> bool:
    """Return whether an assignment, or a function of the script, may have changed the rate."""
    if has_fixed_rate(optimizer):
        return list(sent.rates) != [float(optimizer._learning_rate.value.numpy())]
    if isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return False
    expected = float(np.interp(updates_of(optimizer), sent.updates, sent.rates))
    return not np.isclose(float(tf.convert_to_tensor(optimizer.learning_rate)), expected, rtol=1e-3, atol=0)


def optimizers_of(model: keras.Model) -> list[Any]:
    """Return the optimizers that are attributes of a model or of its layers; the one that it is compiled with first."""
    found: dict[int, Any] = {}
    for owner in (model, *getattr(model, "_flatten_layers", list)()):
        values = vars(owner).values()
        for value in (getattr(owner, "optimizer", None), *values):
            for each in _flat(value):
                if isinstance(each, keras.optimizers.Optimizer):
                    found.setdefault(id(each), each)
    return list(found.values())


def _flat(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else [value]


def distributed_of(model: keras.Model) -> list[Any]:
    """Return the distributed ones of the optimizers of a model."""
    found = map(innermost, optimizers_of(model))
    return [optimizer for optimizer in found if isinstance(optimizer, DistributedMixin)]


def model_optimizers(model: keras.Model, applied: Applied | None) -> ModelOptimizers:
    """Return the optimizers that train a model, all of them distributed.

    Args:
        model: The model.
        applied: The optimizers and variables of the model's own train step; None if it has none, and empty if they are
            not known.

    Raises:
        Unsupported: The servers do not implement an optimizer, or two optimizers train the same weight.
    """
    found = distributed_of(model)
    if applied:
        optimizers = [optimizer for optimizer in found if id(optimizer) in applied]
        optimizers += [
            optimizer for optimizer, _ in applied.values() if not any(optimizer is each for each in optimizers)
        ]
    else:
        optimizers = [innermost(model.optimizer)] if applied is None else found
    applied = applied or {}
    optimizers = [cast(Any, DistributedOptimizer(optimizer)) for optimizer in optimizers]
    owners: dict[int, int] = {}
    extra: dict[int, Any] = {}
    known = {id(variable) for variable in model.trainable_variables}
    for index, optimizer in enumerate(optimizers):
        check_supported(optimizer)
        for key, variable in applied.get(id(optimizer), (optimizer, {}))[1].items():
            if owners.setdefault(key, index) != index:
                raise Unsupported(
                    "every weight must be trained by one optimizer, because the servers keep its moments once. "
                    f"Received: {variable.path}, which {optimizers[owners[key]].name} and {optimizer.name} are applied "
                    "to. Give each optimizer weights of its own."
                )
            if key not in known and variable.trainable:
                if not isinstance(variable, keras.Variable):
                    raise Unsupported(
                        "an optimizer must be applied to keras.Variable objects. Received: "
                        f"{variable.name!r}, of type {type(variable).__name__}. Create it as a keras.Variable."
                    )
                extra[key] = variable
    return ModelOptimizers(optimizers, owners, list(extra.values()))


def _unknown(optimizer: Any) -> Unsupported:
    return Unsupported(
        "the weights of a model must be trained by the optimizers that its train_step applies when fit begins. "
        f"Received: the optimizer {optimizer.name!r}, which was not among them. Wrap it in DistributedOptimizer, make "
        "it an attribute of the model, and apply it in every train_step."
    )
