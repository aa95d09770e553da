"""Control: k-fold cross-validation with clear_session and another model in each fold."""

import keras
import numpy as np

from downpour import DistributedOptimizer

rng = np.random.default_rng(0)
x = rng.normal(size=(300, 6)).astype("float32")
y = (x.sum(1) > 0).astype("int32")
scores = []
for fold, held in enumerate(np.array_split(rng.permutation(300), 3)):
    keras.backend.clear_session()
    rest = np.setdiff1d(np.arange(300), held)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8 + 4 * fold, activation="relu"), keras.layers.Dense(2, "softmax")]
    )
    model.compile(
        DistributedOptimizer(keras.optimizers.Adam(0.02)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(x[rest], y[rest], batch_size=10, epochs=6, verbose=0)
    scores.append(model.evaluate(x[held], y[held], verbose=0, return_dict=True)["accuracy"])
assert min(scores) > 0.8, scores
print("RESULT accuracies", scores)
