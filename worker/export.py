"""`python -m downpour.worker.export FILE --format FORMAT --to PATH`: exports a trained model for other programs."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

from downpour.protos.settings import parse
from downpour.protos.system.progress import doing
from downpour.worker.config import ExportSettings
from downpour.worker.quiet_tensorflow import load_tensorflow


def main(argv: list[str]) -> int:
    """Write the model; return the exit code."""
    settings = parse(ExportSettings, argv, "python -m downpour.worker.export")
    with doing("load TensorFlow"):
        load_tensorflow()
    import keras

    path = Path(settings.to)
    try:
        model = keras.models.load_model(settings.file, compile=False)
        # Standard output must contain the path only, but converters print as well.
        with doing(f"export as {settings.format}"), redirect_stdout(sys.stderr):
            {"keras": _keras, "savedmodel": _savedmodel, "tflite": _tflite}[settings.format](model, path)
    # A model that cannot be read or converted raises errors of nearly any type, whose text is enough.
    except Exception as error:
        print(f"downpour export: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


def _keras(model: object, path: Path) -> None:
    model.save(path)  # type: ignore[attr-defined]


def _savedmodel(model: object, path: Path) -> None:
    model.export(path, format="tf_saved_model", verbose=False)  # type: ignore[attr-defined]


def _tflite(model: object, path: Path) -> None:
    import tensorflow as tf

    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
