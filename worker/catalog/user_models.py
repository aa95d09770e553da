"""Models that a user names as `module:function`."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


class ModelError(ValueError):
    """A model cannot be found or built, or cannot be trained on the dataset that was chosen."""


def find_function(spec: str) -> Callable[..., Any]:
    """Return the function that `module:function` names; the module may be in the current folder.

    Raises:
        ModelError: The module cannot be imported.
        ModelError: The module has no function of this name.
    """
    module_name, _, function_name = spec.partition(":")
    if not module_name or not function_name:
        raise ModelError(f"a model's function must be named module:function. Received: {spec!r}.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # where `python` itself would look first
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ModelError(f"{spec}: {module_name} must import. Received: {error}. Install that.") from error
        raise ModelError(
            f"{spec}: the module must be importable. Received: {module_name!r}, which Python does not find. "
            "Run from the folder that it is in, or name that folder in PYTHONPATH."
        ) from error
    # A module may raise anything while it is imported.
    except Exception as error:
        raise ModelError(f"{spec}: {module_name} must import. Received: {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        received = "no such name" if function is None else f"an object of type {type(function).__name__}"
        raise ModelError(
            f"{spec}: {function_name} must be a function in {module_name} that returns a Keras model. "
            f"Received: {received}. Its functions are: {', '.join(functions) or 'none'}."
        )
    return function


def call_function(spec: str, function: Callable[..., Any], offered: dict[str, Any]) -> keras.Model:
    """Return the Keras model that a user's function builds.

    Args:
        spec: `module:function`, for messages.
        function: The function.
        offered: The arguments by name; the function receives those that it has parameters for.

    Raises:
        ModelError: The function needs other arguments, raises an error, or does not return a Keras model.
    """
    import keras

    parameters = inspect.signature(function).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    if unknown := [name for name in required if name not in offered]:
        raise ModelError(
            f"{spec}: the function must require no parameters other than {' and '.join(offered)}. "
            f"Received: one that requires {', '.join(unknown)} too. Give these parameters a default."
        )
    wanted = {name: value for name, value in offered.items() if any(p.name == name for p in parameters)}
    # A user's function may raise any error, which is the reason why there is no model.
    try:
        model = function(**wanted)
    except Exception as error:
        raise ModelError(f"{spec}: the function must not raise. Received: {type(error).__name__}: {error}") from error
    if not isinstance(model, keras.Model):
        raise ModelError(f"{spec}: it must return a keras.Model. Received: an object of type {type(model).__name__}.")
    return model
