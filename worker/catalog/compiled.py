"""Checks that a user's model is trained as it was compiled: what only Keras's `fit` would carry out is refused.

`downpour train` computes gradients of the compiled loss itself. A method that the model's class overrides, a constraint
or a weight of another type would be passed over without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from downpour.worker.catalog.user_models import ModelError

if TYPE_CHECKING:
    import keras

# Methods of Keras's trainer that decide what `fit` and `evaluate` do.
METHODS = (
    "train_step", "test_step", "compute_loss", "compute_metrics", "make_train_function", "make_test_function", "fit",
    "evaluate", "train_on_batch", "test_on_batch", "stateless_compute_loss", "get_metrics_result",
)  # fmt: skip
_given: WeakKeyDictionary[Any, frozenset[str]] = WeakKeyDictionary()


@contextmanager
def compile_calls_recorded() -> Iterator[None]:
    """Record which arguments models are compiled with; Keras's own defaults cannot be told from a user's choice."""
    import keras

    original = keras.Model.compile

    def compile_(self: Any, *arguments: Any, **named: Any) -> Any:
        _given[self] = frozenset(named) | ({"optimizer"} if arguments else set())
        return original(self, *arguments, **named)

    keras.Model.compile = compile_
    try:
        yield
    finally:
        keras.Model.compile = original


def leave_optimizer_to_job(model: keras.Model) -> None:
    """Record that the optimizer that a model is compiled with is not its author's choice."""
    _given[model] = frozenset()


def chosen_optimizer(model: keras.Model) -> Any:
    """Return the optimizer that a model was compiled with, or None if its author left the choice to the job."""
    return model.optimizer if "optimizer" in _given.get(model, {"optimizer"}) else None


def check_compiled(spec: str, model: keras.Model, outputs: Any) -> None:
    """Check that `downpour train` does what Keras's `fit` would do with a user's model.

    Args:
        spec: `module:function`, for messages.
        model: The model, built.
        outputs: The outputs for some samples.

    Raises:
        ModelError: The model needs something that only `fit` carries out.
    """
    _check_methods(spec, model)
    _check_weights(spec, model)
    if not model.compiled:
        return
    if model.loss is None:
        raise ModelError(
            f"{spec}: a compiled model must have a loss. Received: one that is compiled without a loss. Pass loss=… to "
            "compile, or do not compile a classifier that returns probabilities."
        )
    if isinstance(model.loss, list | tuple | dict) or not hasattr(outputs, "shape"):
        raise ModelError(
            f"{spec}: the model must have one output with one loss. Received: {type(outputs).__name__} of outputs and "
            f"the loss {model.loss!r}. Train it with a script and `downpour run`."
        )
    config = model.get_compile_config() or {}
    if weights := config.get("loss_weights"):
        raise ModelError(
            f"{spec}: the loss must have no weight. Received: loss_weights={weights!r}, which only Keras's fit carries "
            "out. Multiply the loss by it in a function, or train with a script and `downpour run`."
        )


def keras_loss(model: keras.Model) -> Any:
    """Return the loss of a model as Keras finds it: a function, or an object that computes the loss."""
    import keras

    return keras.losses.get(model.loss)


def loss_name(model: keras.Model) -> str:
    """Return the name of the function that computes a model's loss, or of its class."""
    loss = keras_loss(model)
    function = getattr(loss, "fn", loss)
    return str(getattr(function, "__name__", type(loss).__name__))


def _check_methods(spec: str, model: keras.Model) -> None:
    for name in METHODS:
        method = getattr(type(model), name, None)
        if name in vars(model) or not str(getattr(method, "__module__", "")).startswith(("keras.", "tensorflow.")):
            raise ModelError(
                f"{spec}: the model must be trained by the loss that it is compiled with. Received: "
                f"{type(model).__name__} with a {name} of its own, which `downpour train` does not call. Train it with "
                "a script and `downpour run`, which calls it, or remove the method."
            )


def _check_weights(spec: str, model: keras.Model) -> None:
    for weight in model.trainable_variables:
        constraint = getattr(weight, "constraint", None)
        if constraint is not None:
            raise ModelError(
                f"{spec}: a weight must have no constraint, which the servers do not apply. Received: {weight.path} "
                f"with the constraint {type(constraint).__name__}. Leave it out, or use a regularizer."
            )
        if getattr(weight, "overwrite_with_gradient", False):
            raise ModelError(
                f"{spec}: a weight must be updated by the optimizer. Received: {weight.path}, which its gradient "
                "overwrites. Leave quantized training out."
            )
        if str(weight.dtype) != "float32":
            raise ModelError(
                f"{spec}: weights must be float32, as they are on the servers. Received: {weight.path} of "
                f"{weight.dtype}. Build the model with the policy float32 or mixed_bfloat16."
            )
    for layer in model._flatten_layers():
        if getattr(getattr(layer, "dtype_policy", None), "compute_dtype", None) == "float16":
            raise ModelError(
                f"{spec}: layers must not compute in float16, which needs scaled losses. Received: {layer.name}. "
                "Use the policy mixed_bfloat16."
            )
