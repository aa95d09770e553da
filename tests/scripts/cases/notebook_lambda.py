"""LocalCluster with what cannot travel: a Lambda of a Python lambda, a metric defined in the session. Run it with python.

Right: trained, or refused with words that say what to do (as layers and losses of the session are).
"""

import keras
import numpy as np

from downpour import LocalCluster


def half_off(y, outputs):
    return keras.ops.mean(keras.ops.abs(y - outputs) > 0.5)


x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
dense = keras.layers.Dense
CASES = {
    "lambda": ([keras.Input((3,)), keras.layers.Lambda(lambda t: t * 2), dense(1)], []),
    "metric": ([keras.Input((3,)), dense(1)], [half_off]),
}
for name, (layers, metrics) in CASES.items():
    model = keras.Sequential(layers)
    model.compile("adam", "mse", metrics=metrics, jit_compile=False)
    try:
        losses = (
            LocalCluster(workers=2, runs_dir="runs").fit(model, x, x[:, :1], epochs=1, batch_size=8).history["loss"]
        )
        result = f"trained, {losses}"
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
        helps = ("modules=", "register", "safe_mode", "enable_unsafe_deserialization", "write a script")
        assert any(word in result for word in helps), f"{name}: a refusal must say what to do; it said {result[:600]}"
    print("RESULT", name, result[:300])
