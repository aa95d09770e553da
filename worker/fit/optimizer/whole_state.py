"""The whole state of a distributed optimizer, with the slots that the servers have, as variables of Keras.

During `fit` the slots are on the servers only. What reads, saves or restores the variables of an optimizer finds them
in a second optimizer of Keras, which is built when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import keras
import tensorflow as tf

from downpour.protos.errors import Unsupported
from downpour.worker.fit.optimizer.optimizer_checks import config_of
from downpour.worker.fit.optimizer.optimizer_slots import KERAS_AVERAGES, Slots, slots_of, write_derived

# Children in a checkpoint of TensorFlow that are those of the distributed optimizer itself.
_OWN_CHILDREN = ("_iterations", "_learning_rate", "_trainable_variables", "_trainable_variables_indices", "_variables")


class WholeState:
    """The variables of a distributed optimizer, as Keras and TensorFlow's checkpoints see them.

    Attributes:
        keras_class: The class of Keras, or a class of the script that inherits from one.
        kept_slots: The slots between two calls of `fit`; None if the optimizer has none or has not been used.
        slot_source: A function that returns the slots on the servers, during `fit` or after it; None otherwise.
        dropped: Whether this worker has not kept the slots, which are large, after `fit`.
        shown: An optimizer of Keras whose variables hold the slots for the script; None until it asks for them.
    """

    keras_class: Any = None
    kept_slots: Slots | None = None
    slot_source: Callable[[], Slots | None] | None = None
    dropped = False
    shown: Any = None

    @property
    def variables(self) -> list[Any]:
        """The variables of the optimizer in the order of Keras, with the slots."""
        own = list(cast(Any, self)._variables)
        averages = getattr(self, KERAS_AVERAGES, None) or ()
        own = own[: len(own) - len([each for each in averages if each is not None])]  # the servers have them
        return [*own, *_shown(self)._variables[len(own) :]] if cast(Any, self).built else own

    def _trackable_children(self, save_type: Any = "checkpoint", **options: Any) -> Mapping[str, Any]:
        parent: Any = super()
        children: Mapping[str, Any] = parent._trackable_children(save_type, **options)
        return {**children, **_slot_children(self)} if cast(Any, self).built else children

    def _lookup_dependency(self, name: str, *cached: Any) -> Any:
        parent: Any = super()
        found = _slot_children(self).get(name) if cast(Any, self).built else None
        return parent._lookup_dependency(name, *cached) if found is None else found


def restore_deferred(optimizer: Any) -> None:
    """Restore the slots of an optimizer that has just been built from a checkpoint that was restored before."""
    if getattr(optimizer, "_self_unconditional_deferred_dependencies", None):
        with tf.init_scope():
            for name, child in _slot_children(optimizer).items():
                optimizer._handle_deferred_dependencies(name=name, trackable=child)


def kept_slots_of(optimizer: Any) -> Slots | None:
    """Return the slots between two calls of `fit`, as the script has left them; None if there are none."""
    kept = cast("Slots | None", optimizer.kept_slots)
    shown = slots_of(optimizer.shown) if optimizer.shown is not None else None
    return kept if shown is None else shown if kept is None else kept.updated(shown)


def keep_slots(optimizer: Any, slots: Slots | None) -> None:
    """Keep slots in an optimizer until the next call of `fit`; Keras does not track the attribute."""
    object.__setattr__(optimizer, "kept_slots", slots)
    object.__setattr__(optimizer, "dropped", False)
    if slots is not None and optimizer.shown is not None:
        slots.write(optimizer.shown)


def drop_slots(optimizer: Any) -> None:
    """Refuse to show the slots of an optimizer, which this worker has not kept."""
    object.__setattr__(optimizer, "dropped", True)


def set_slot_source(optimizer: Any, source: Callable[[], Slots | None] | None) -> None:
    """Set where the slots are read from; Keras does not track the attribute."""
    object.__setattr__(optimizer, "slot_source", source)


@contextmanager
def as_plain(optimizer: Any) -> Iterator[None]:
    """Within this context, the optimizer is Keras's own with its slots, so that plain Keras can load what is saved."""
    if not isinstance(optimizer, WholeState):
        yield
        return
    with _with_methods_of(optimizer, plain_copy(optimizer), "save_own_variables"):
        yield


@contextmanager
def loading(optimizer: Any) -> Iterator[None]:
    """Within this context, what is loaded into the optimizer includes its slots and the number of its updates."""
    if not isinstance(optimizer, WholeState):
        yield
        return
    whole, own = plain_copy(optimizer), cast(Any, optimizer)
    with _with_methods_of(optimizer, whole, "load_own_variables"):
        yield
    own._iterations.assign(whole._iterations)
    if isinstance(own._learning_rate, keras.Variable):
        own._learning_rate.assign(whole._learning_rate)
    if own.built:
        keep_slots(optimizer, slots_of(whole))


def _shown(optimizer: Any) -> Any:
    """Return the optimizer whose variables the script sees, with the present slots."""
    if optimizer.dropped and optimizer.slot_source is None:
        raise Unsupported(
            "the variables of a large optimizer must be read on worker 0, which keeps them. Received: a call on "
            "another worker. Read them `if downpour.rank() == 0`, or once before fit, so that all workers keep them."
        )
    with tf.init_scope():  # the script may read the variables while a function is traced
        if optimizer.shown is None:
            object.__setattr__(optimizer, "shown", plain_copy(optimizer))
        elif optimizer.slot_source is not None and not tf.inside_function():
            optimizer.slot_source()
        write_derived(optimizer.shown, optimizer)
    return optimizer.shown


def _slot_children(optimizer: Any) -> dict[str, Any]:
    """Return what a checkpoint of TensorFlow contains of an optimizer of Keras besides its own variables."""
    children = _shown(optimizer)._trackable_children()
    slots = {name: child for name, child in children.items() if name not in (*_OWN_CHILDREN, "_accumulated_gradients")}
    shown = _shown(optimizer)
    if not hasattr(shown, "listed"):  # TensorFlow knows an object by its identity
        object.__setattr__(shown, "listed", tf.__internal__.tracking.wrap(optimizer.variables))
    return {**slots, "_variables": shown.listed}


def plain_copy(optimizer: Any) -> Any:
    """Return an optimizer of Keras with the state of a distributed one, including its slots.

    A second optimizer holds the slots, because TensorFlow tracks the lists of variables of this one.
    """
    distributed_class, keras_own = type(optimizer), cast(Any, optimizer)
    whole = distributed_class.keras_class.from_config(config_of(keras_own))
    if not isinstance(keras_own._learning_rate, keras.Variable):
        whole.learning_rate = keras_own._learning_rate
    whole._iterations.assign(keras_own._iterations)
    if keras_own.built:
        whole.build(keras_own._trainable_variables)
        write_derived(whole, keras_own)
        for copy, own in zip(_accumulated(whole), _accumulated(keras_own), strict=True):
            copy.assign(own)
        slots = keras_own.slot_source() if keras_own.slot_source is not None else kept_slots_of(keras_own)
        if slots is not None:
            slots.write(whole)
    return whole


def _accumulated(optimizer: Any) -> Sequence[Any]:
    return optimizer._accumulated_gradients if optimizer.gradient_accumulation_steps else ()


@contextmanager
def _with_methods_of(optimizer: Any, whole: Any, name: str) -> Iterator[None]:
    """Within this context, the optimizer is of Keras's class, and a method is that of another optimizer."""
    distributed_class = type(optimizer)
    object.__setattr__(optimizer, "__class__", distributed_class.keras_class)
    object.__setattr__(optimizer, name, getattr(whole, name))
    try:
        yield
    finally:
        object.__delattr__(optimizer, name)
        object.__setattr__(optimizer, "__class__", distributed_class)
