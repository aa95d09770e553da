"""Loads TensorFlow without its log, whose first lines cannot be suppressed by a log level.

Without further settings TensorFlow reserves all memory of a GPU, so that a second process on it fails; here it takes
memory as it needs it. A user who sets `TF_FORCE_GPU_ALLOW_GROWTH` decides otherwise.

A user who sets `TF_CPP_MIN_LOG_LEVEL` to 0 or 1 wants the log and receives all of it; `--verbose` sets it so.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from downpour.protos.errors import Unsupported
from downpour.protos.logs import OF_TENSORFLOW

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
MEMORY_GROWTH = "TF_FORCE_GPU_ALLOW_GROWTH"


def load_tensorflow(plots: bool = False, gpus: int | None = None) -> None:
    """Import Keras and TensorFlow, and look for GPUs, without a log.

    Args:
        plots: Whether Keras may import matplotlib, which takes a fifth of the time and which only scripts need.
        gpus: The number of GPUs that TensorFlow must find; None if any number is accepted.

    Raises:
        Unsupported: It finds fewer. It would compute on the processor without a message.
    """
    os.environ.setdefault(LEVEL, "2")
    os.environ.setdefault(MEMORY_GROWTH, "true")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    absent = not plots and "matplotlib" not in sys.modules
    if absent:
        sys.modules["matplotlib"] = None  # type: ignore[assignment]
    try:
        with tensorflow_log_filtered():
            import keras  # noqa: F401 (TensorFlow logs while it is imported)
            import tensorflow

            tensorflow.config.list_physical_devices()  # otherwise it would log its search for GPUs later
            found = len(tensorflow.config.list_physical_devices("GPU"))
    finally:
        if absent:
            del sys.modules["matplotlib"]
    if gpus is not None and found < gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "of this machine")
        raise Unsupported(
            f"--gpus-per-worker demands {gpus} of the devices {visible}; TensorFlow finds {found}. Install its "
            "libraries for GPUs, pip install 'tensorflow[and-cuda]', check nvidia-smi, or use --gpus-per-worker 0."
        )


@contextmanager
def tensorflow_log_filtered() -> Iterator[None]:
    """Buffer the standard error of a block, and write it afterwards without the log of TensorFlow."""
    if os.environ.get(LEVEL) in ("0", "1"):
        yield
        return
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            kept.seek(0)
            for line in kept.read().decode(errors="replace").splitlines():
                if line.strip() and not OF_TENSORFLOW.match(line):
                    os.write(2, f"{line}\n".encode())
