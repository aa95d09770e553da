"""Facts that the bits of a gradient depend on besides weights and samples. They are stored in config.json."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from downpour.worker.compute.flat_model import FlatModel

# They select kernels or change the results of kernels.
VARIABLES = (
    "TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "TF_XLA_FLAGS", "XLA_FLAGS",
    "TF_SET_ONEDNN_FPMATH_MODE",
)  # fmt: skip


def facts_here() -> dict[str, str]:
    """Return versions, processor and environment variables of this process."""
    set_here = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "variables": " ".join(set_here),
    }


def compiled_facts(xla: bool, model: FlatModel) -> dict[str, str]:
    """Return whether the gradient is compiled by XLA, and the seeds that the model was built with."""
    return {"compiled": "xla" if xla else "plain", "seeds": seeds_text(model.seeds)}


def model_fingerprint(model: keras.Model) -> str:
    """Return a digest of a model's configuration, such as its activations; empty if it cannot be written as JSON.

    Two models may have equal weights and compute different functions.
    """
    # A class of a user may raise anything in its get_config.
    try:
        return hashlib.sha256(model.to_json().encode()).hexdigest()[:16]
    except Exception:
        return ""


def seeds_text(seeds: list[np.ndarray]) -> str:
    """Return the seeds of a model's generators as a text, such as `12,34 56,78`."""
    return " ".join(",".join(str(int(number)) for number in seed) for seed in seeds)


def seeds_of(text: str) -> list[np.ndarray]:
    """Return the seeds, `int64[2]` each, of a text that `seeds_text` has returned."""
    return [np.array([int(number) for number in seed.split(",")], np.int64) for seed in text.split()]


def _processor() -> str:
    """Return the name of the processor that the kernel reports, and a digest of its features."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    rows = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    features = " ".join(sorted(rows.get("flags", rows.get("Features", "")).split()))
    name = rows.get("model name", platform.machine())
    return f"{name}, {hashlib.sha256(features.encode()).hexdigest()[:12]}"
