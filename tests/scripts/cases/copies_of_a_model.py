"""A model that has been trained can be cloned, copied, pickled and described."""

import copy
import pickle

import keras
import numpy as np

from downpour import DistributedOptimizer

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(optimizer=DistributedOptimizer("adam"), loss="mse")
x = np.ones((64, 4), "float32")
model.fit(x, np.ones((64, 1)), verbose=0)
ways = {
    "clone_model": lambda: keras.models.clone_model(model),
    "pickle": lambda: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda: copy.deepcopy(model),
    "to_json": lambda: keras.models.model_from_json(model.to_json()),
}
for name, way in ways.items():
    made = way()
    if name in ("pickle", "deepcopy"):
        assert np.array_equal(made.predict(x, verbose=0), model.predict(x, verbose=0)), name
        made.fit(x, np.ones((64, 1)), verbose=0)
print("RESULT", *ways)
