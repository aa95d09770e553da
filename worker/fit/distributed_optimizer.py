"""The one line of a script: `DistributedOptimizer(keras.optimizers.SGD(0.1))`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import keras

from downpour.worker import script
from downpour.worker.fit import optimizer_spec as carried
from downpour.worker.fit.optimizer_slots import Slots, slots_of

if TYPE_CHECKING:
    from downpour.worker.fit.build_model import NoWire
    from downpour.worker.fit.gradient_op import GradientOp


def DistributedOptimizer(optimizer: Any) -> Any:  # noqa: N802 - named as the class that it stands for
    """Return an optimizer whose updates are computed on the parameter servers.

        model.compile(optimizer=DistributedOptimizer(keras.optimizers.SGD(0.1)), loss="mse", metrics=["mae"])
        model.fit(x, y, epochs=5)

    In a script that `downpour run` has started, `fit` of a model that is compiled with it pushes gradients to the
    servers and pulls weights from them. In any other process the optimizer is returned unchanged, so that the script
    also runs with `python`.

    Args:
        optimizer: A Keras optimizer, or the name or configuration of one, as `keras.optimizers.get` accepts it. The
            object itself is converted, so that variables and schedules that the script holds stay in use.

    Returns:
        The same object. It is still an instance of its Keras class.

    Raises:
        Unsupported: The servers do not implement this optimizer.
        Unsupported: The optimizer has an argument that the servers do not implement, such as `use_ema`.
        ValueError: Keras does not know an optimizer of this name.
    """
    optimizer = keras.optimizers.get(optimizer)
    if script.member is None or isinstance(optimizer, Distributed):
        return optimizer
    carried.check(optimizer)
    kept = slots_of(optimizer)
    # Its class changes and all else stays: schedules and variables are the user's own objects.
    object.__setattr__(optimizer, "__class__", _distributed(cast(Any, type(optimizer))))
    keep(optimizer, kept)
    return optimizer


class Distributed:
    """What a distributed optimizer does otherwise than the Keras class beside it.

    Attributes:
        plain: That class.
        wire: To the servers, while `fit` runs.
        kept: The slots, between one `fit` and the next; None: it has not been used yet, or has none.
    """

    plain: Any = None
    wire: GradientOp | NoWire | None = None
    kept: Slots | None = None

    def build(self, variables: Sequence[Any]) -> None:
        """Makes no slots: the servers have them."""
        keras.optimizers.Optimizer.build(self, variables)

    def scale_loss(self, loss: Any) -> Any:
        """Notes the loss, for whoever watches the job."""
        if self.wire is not None:
            self.wire.loss = loss
        return loss

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Pushes gradients; the weights are the servers' afterwards.

        Raises:
            RuntimeError: Outside of `model.fit`.
        """
        if self.wire is None:
            raise RuntimeError(
                "a DistributedOptimizer must be applied within fit of a model that was compiled with it: not by "
                "train_on_batch, nor in a loop of your own. Write that loop's body as the model's train_step; a model "
                "with several optimizers cannot be distributed."
            )
        me: Any = self
        variables = me._trainable_variables if trainable_variables is None else list(trainable_variables)
        if not me.built:
            me.build(variables)
        self.wire.step(dict(zip(map(id, variables), grads, strict=True)))
        me._iterations.assign_add(1)


@cache
def _distributed(plain: Any) -> Any:
    return type(plain.__name__, (Distributed, plain), {"plain": plain, "__doc__": Distributed.__doc__})


def set_wire(optimizer: Any, wire: GradientOp | NoWire | None) -> None:
    """Connects an optimizer to the servers, or disconnects it; Keras must not track the connection."""
    object.__setattr__(optimizer, "wire", wire)


def keep(optimizer: Any, slots: Slots | None) -> None:
    """Remembers slots until they are wanted; Keras must not track them."""
    object.__setattr__(optimizer, "kept", slots)


@contextmanager
def as_plain(optimizer: Any) -> Iterator[None]:
    """While it lasts, the optimizer is the Keras optimizer that it was, with slots: to be saved for plain Keras."""
    if not isinstance(optimizer, Distributed):
        yield
        return
    mine, keras_own = type(optimizer), cast(Any, optimizer)
    # Another one has the slots: this one's lists of variables are TensorFlow's to watch, and stay as they are.
    whole = mine.plain.from_config(keras_own.get_config())
    if keras_own.built:
        whole.build(keras_own._trainable_variables)
        if keras_own.kept is not None:
            keras_own.kept.write(whole)
    whole._iterations.assign(keras_own._iterations)
    object.__setattr__(optimizer, "__class__", mine.plain)
    object.__setattr__(optimizer, "save_own_variables", whole.save_own_variables)
    try:
        yield
    finally:
        object.__delattr__(optimizer, "save_own_variables")
        object.__setattr__(optimizer, "__class__", mine)
