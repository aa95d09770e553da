"""Transfer learning & fine-tuning (keras.io/guides/transfer_learning); the base model is trained here first."""

import keras
import numpy as np

from downpour import DistributedOptimizer

prototypes = np.random.rand(6, 16, 16, 3)


def images(classes, count):
    labels = np.random.randint(0, len(classes), count)
    return (prototypes[np.array(classes)[labels]] + 0.1 * np.random.randn(count, 16, 16, 3)).astype("float32"), labels


base_inputs = keras.Input((16, 16, 3))
features = keras.layers.Conv2D(8, 3, activation="relu")(base_inputs)
features = keras.layers.BatchNormalization()(features)
features = keras.layers.MaxPooling2D()(features)
features = keras.layers.Conv2D(16, 3, activation="relu")(features)
features = keras.layers.BatchNormalization()(features)
base_model = keras.Model(base_inputs, features, name="base")
pretraining = keras.Sequential([base_model, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)])
pretraining.compile(
    DistributedOptimizer(keras.optimizers.Adam(0.005)),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
pretraining.fit(*images([0, 1, 2, 3], 320), epochs=3, verbose=2)
base_model.save("base.keras")

base_model = keras.models.load_model("base.keras")
base_model.trainable = False
frozen = [w.copy() for w in base_model.get_weights()]
inputs = keras.Input(shape=(16, 16, 3))
x = keras.layers.RandomFlip("horizontal")(inputs)
x = keras.layers.Rescaling(scale=1 / 1.0, offset=0)(x)
x = base_model(x, training=False)
x = keras.layers.GlobalAveragePooling2D()(x)
x = keras.layers.Dropout(0.2)(x)
outputs = keras.layers.Dense(1)(x)
model = keras.Model(inputs, outputs)
model.summary(show_trainable=True)
model.compile(
    optimizer=DistributedOptimizer(keras.optimizers.Adam(0.01)),
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[keras.metrics.BinaryAccuracy()],
)
train, validation = images([4, 5], 256), images([4, 5], 64)
model.fit(*train, epochs=3, validation_data=validation)
assert all(np.array_equal(a, b) for a, b in zip(frozen, base_model.get_weights()))

base_model.trainable = True
model.compile(
    optimizer=DistributedOptimizer(keras.optimizers.Adam(1e-4)),
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[keras.metrics.BinaryAccuracy()],
)
history = model.fit(*train, epochs=2, validation_data=validation)
moved = [np.abs(a - b).max() > 0 for a, b in zip(frozen, base_model.get_weights())]
assert any(moved)
# The base runs in inference mode: its moving statistics stay.
statistics = [v for v in base_model.non_trainable_variables if "moving" in v.path]
kept = {id(v): np.asarray(v) for v in statistics}
assert len(kept) == 4
print("RESULT validation accuracy", history.history["val_binary_accuracy"][-1])
