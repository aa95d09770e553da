"""A table of numbers and texts in a tf.data.Dataset, with layers that prepare them; one line is ours."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from downpour import DistributedOptimizer

rng = np.random.default_rng(3)
ROWS = 1200
columns = {
    "age": rng.integers(20, 80, ROWS).astype("float32"),
    "level": rng.normal(240, 40, ROWS).astype("float32"),
    "kind": rng.integers(0, 5, ROWS),
    "state": rng.choice(np.array(["fixed", "normal", "reversible"]), ROWS),
}
target = ((columns["age"] > 55) & (columns["state"] != "normal") | (columns["kind"] == 3)).astype("int64")


def dataset(rows: slice) -> tf.data.Dataset:
    part = {name: column[rows] for name, column in columns.items()}
    return tf.data.Dataset.from_tensor_slices((part, target[rows])).shuffle(ROWS).batch(32)


train, validation = dataset(slice(0, 1000)), dataset(slice(1000, None))
inputs, features = {}, []
for name in ("age", "level"):
    inputs[name] = keras.Input((1,), name=name)
    scaled = layers.Normalization()
    scaled.adapt(train.map(lambda x, y, name=name: tf.expand_dims(x[name], -1)))
    features.append(scaled(inputs[name]))
for name, lookup, dtype in (("kind", layers.IntegerLookup, "int64"), ("state", layers.StringLookup, "string")):
    inputs[name] = keras.Input((1,), name=name, dtype=dtype)
    coded = lookup(output_mode="multi_hot")
    coded.adapt(train.map(lambda x, y, name=name: tf.expand_dims(x[name], -1)))
    features.append(coded(inputs[name]))
hidden = layers.Dropout(0.3)(layers.Dense(32, activation="relu")(layers.concatenate(features)))
model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(hidden))
adam = keras.optimizers.Adam(0.01)
model.compile(optimizer=DistributedOptimizer(adam), loss="binary_crossentropy", metrics=["accuracy"])
model.fit(train, epochs=8, validation_data=validation, verbose=2)
model.save("table.keras")
again = keras.models.load_model("table.keras")
one = {"age": 60.0, "level": 233.0, "kind": 1, "state": "fixed"}
print("one", again.predict({name: tf.constant([value]) for name, value in one.items()}, verbose=0).shape)
print("ACCURACY", again.evaluate(validation, verbose=0)[1])
