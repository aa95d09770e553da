"""Prints loss and accuracy of a trained model as one JSON line: `python -m downpour.worker.examine FILE`."""

from __future__ import annotations

import json
import os
import sys

from downpour.protos.settings import parse
from downpour.worker.config import ExamineSettings


def main(argv: list[str]) -> int:
    """Print the result and return the exit code."""
    settings = parse(ExamineSettings, argv, "python -m downpour.worker.examine")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from downpour.worker.catalog.datasets import DatasetError, load, scale_of
    from downpour.worker.catalog.models import MODELS, build
    from downpour.worker.compute.evaluate import Evaluator
    from downpour.worker.compute.flat_model import read_weights

    try:
        dataset = load(settings.dataset)
        model = keras.models.load_model(settings.file, compile=False)
    # Keras raises errors of nearly any type on a file that is not its own.
    except (DatasetError, OSError, ValueError, TypeError, KeyError) as error:
        print(f"downpour evaluate: {error}", file=sys.stderr)
        return 1
    if settings.model in MODELS:  # a file does not hold every loss
        model.loss = build(settings.model, dataset.input_shape, dataset.classes).loss
    elif settings.loss:
        model.loss = settings.loss
    found = Evaluator(model, scale_of(dataset))(read_weights(model), dataset.x_test, dataset.y_test)
    result = {"file": settings.file, "dataset": settings.dataset, "samples": found.samples, "loss": found.loss}
    print(json.dumps({**result, "accuracy": found.accuracy}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
