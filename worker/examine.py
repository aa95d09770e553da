"""Prints loss and accuracy of a trained model as one JSON line: `python -m downpour.worker.examine FILE`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from downpour.protos.settings import parse
from downpour.protos.system.json_text import json_text
from downpour.protos.system.progress import doing
from downpour.worker.config import ExamineSettings, factor_of
from downpour.worker.quiet_tensorflow import load_tensorflow

if TYPE_CHECKING:
    from downpour.worker.catalog.datasets import Dataset

_ADVICE = ". If the model has classes or functions of its own, give --model module:function, which builds it."


def main(argv: list[str]) -> int:
    """Print the result and return the exit code."""
    settings = parse(ExamineSettings, argv, "python -m downpour.worker.examine")
    with doing("load TensorFlow"):
        load_tensorflow()
    import keras

    from downpour.worker.catalog.datasets import DatasetError, load
    from downpour.worker.catalog.models import MODELS, ModelError, build, check_targets
    from downpour.worker.catalog.scaling import scaled
    from downpour.worker.compute.evaluate import Evaluator
    from downpour.worker.compute.flat_model import read_weights

    try:
        dataset = load(settings.dataset)
        if settings.compiled:
            return _evaluate_as_compiled(settings, dataset)
        if settings.model:
            model = build(settings.model, dataset.input_shape, dataset.classes)
            model.load_weights(settings.file)
        else:
            model = keras.models.load_model(settings.file, compile=not settings.loss)
        if settings.loss:
            model.loss = settings.loss
        if model.loss is None:
            raise ModelError(
                f"a model must have a loss to be evaluated. Received: {settings.file}, which is not compiled with one. "
                "Name it with --loss."
            )
        check_targets(settings.file, model, dataset)
        dataset = scaled(dataset, model, factor_of(settings.scale), own=settings.model not in MODELS)
    # Keras raises errors of nearly any type on a file that is not its own.
    except Exception as error:
        advice = "" if settings.model or isinstance(error, DatasetError | ModelError) else _ADVICE
        print(f"downpour evaluate: {error}{advice}", file=sys.stderr)
        return 1
    with doing("evaluate the model"):
        found = Evaluator(model, dataset.scale)(read_weights(model), dataset.x_test, dataset.y_test)
    result = {"file": settings.file, "dataset": settings.dataset, "samples": found.samples, "loss": found.loss}
    classes = dataset.y_test.dtype.kind != "f"  # numeric targets have no accuracy
    print(json_text({**result, **({"accuracy": found.accuracy} if classes else {})}))
    return 0


def _evaluate_as_compiled(settings: ExamineSettings, dataset: Dataset) -> int:
    """Print what Keras's own `evaluate` returns for a script's model: its compiled loss and metrics."""
    import keras

    model = keras.models.load_model(settings.file)
    found = model.evaluate(dataset.x_test, dataset.y_test, verbose=0, return_dict=True)
    names = {"file": settings.file, "dataset": settings.dataset, "samples": len(dataset.y_test)}
    print(json_text({**names, **{name: float(value) for name, value in found.items() if np.ndim(value) == 0}}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
