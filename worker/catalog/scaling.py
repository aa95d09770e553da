"""The factor by which samples are multiplied before they enter a model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from downpour.worker.catalog.datasets import Dataset
from downpour.worker.catalog.user_models import ModelError

if TYPE_CHECKING:
    import keras

# Layers that take samples as they are stored: those that scale them, and those that look numbers up.
_OF_STORED_VALUES = (
    "Rescaling", "Normalization", "Embedding", "Discretization", "CategoryEncoding", "Hashing", "HashedCrossing",
    "IntegerLookup",
)  # fmt: skip
_ARITHMETIC = ("Lambda", "Divide", "TrueDivide", "Multiply", "Subtract", "Add", "Cast")


def scaled(dataset: Dataset, model: keras.Model, given: float | None, own: bool) -> Dataset:
    """Return the dataset with the factor that a job uses.

    Args:
        dataset: The dataset with its own factor, which follows from its values.
        model: The model, built.
        given: The factor of the setting `--scale`; None for `auto`.
        own: Whether the model is a user's. Samples are not scaled for one that does it itself; the models of the
            registry never do.

    Raises:
        ModelError: The model computes with the samples in a way that does not tell whether it scales them.
    """
    if given is not None:  # the factor that it has anyway is no choice: a replay gives the one that was recorded
        return dataset if given == dataset.scale else replace(dataset, given_scale=given)
    if dataset.scale == 1.0 or not own:
        return dataset
    kinds = {type(layer).__name__ for layer in model._flatten_layers()}
    if kinds & set(_OF_STORED_VALUES):
        return replace(dataset, given_scale=1.0)
    if ambiguous := _first_operations(model) & set(_ARITHMETIC):
        raise ModelError(
            f"--scale must be given for this model, whose first operation is {', '.join(sorted(ambiguous))} and may "
            "scale the samples. Give --scale 1 if it does, or --scale 1/255 if it expects values from 0 to 1."
        )
    return dataset


def scaling_text(dataset: Dataset) -> str:
    """Return how samples are scaled, as a phrase for the log and the screen."""
    kind = dataset.x_train.dtype
    if dataset.scale == 1.0:
        return f"{kind} samples are used unchanged (see --scale)"
    factor = "divided by 255" if dataset.scale == 1 / 255 else f"multiplied by {dataset.scale:g}"
    return f"{kind} samples are {factor} (see --scale)"


def _first_operations(model: Any) -> set[str]:
    """Return the names of the operations that receive the inputs of a functional model, or those of its first layer."""
    inputs = {id(tensor) for tensor in getattr(model, "inputs", None) or ()}
    found = {
        type(operation).__name__
        for operation in getattr(model, "operations", ())
        for node in getattr(operation, "_inbound_nodes", ())
        if any(id(tensor) in inputs for tensor in node.input_tensors)
    }
    layers = getattr(model, "layers", ())
    return found or {type(layer).__name__ for layer in layers[:1]}
