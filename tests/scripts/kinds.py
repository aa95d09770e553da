"""Kinds of models and data that public examples have; every worker says what it saw."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from downpour import DistributedOptimizer
from downpour.worker import script

out = Path(sys.argv[1])
rank = script.member.rank
rng = np.random.default_rng(0)
seen: dict[str, object] = {}
images = rng.random((96, 28, 28)).astype("float32")


def pairs_that_alternate():
    """One pair that belongs together, one that does not, as examples of Siamese networks make them."""
    even = (np.arange(400) % 2)[:, None]
    first = rng.normal(size=(400, 6)).astype("float32")
    second = np.where(even, first, rng.normal(size=(400, 6))).astype("float32")
    tower = keras.Sequential([keras.Input((6,)), layers.Dense(6, activation="tanh")])
    left, right = keras.Input((6,)), keras.Input((6,))
    apart = layers.Lambda(lambda both: ops.square(both[0] - both[1]), output_shape=(6,))([tower(left), tower(right)])
    model = keras.Model([left, right], layers.Dense(1, activation="sigmoid")(layers.BatchNormalization()(apart)))
    model.compile(DistributedOptimizer(keras.optimizers.Adam(0.03)), "binary_crossentropy", metrics=["accuracy"])
    return model.fit([first, second], even[:, 0], epochs=8, batch_size=16, verbose=0).history


def texts():
    words = np.array("good great fine nice bad awful poor sad film plot actor scene".split())
    right = rng.integers(0, 2, 320)
    lines = [" ".join([*rng.choice(words[8:], 5), *rng.choice(words[:4] if good else words[4:8], 3)]) for good in right]
    raw = tf.data.Dataset.from_tensor_slices((np.array(lines), right)).batch(16)
    vectorize = layers.TextVectorization(max_tokens=50, output_sequence_length=8)
    vectorize.adapt(raw.map(lambda text, label: text))
    train = raw.map(lambda text, label: (vectorize(text), label)).cache().prefetch(tf.data.AUTOTUNE)
    tokens = keras.Input((None,), dtype="int64")
    hidden = layers.Dropout(0.2)(layers.Embedding(50, 16)(tokens))
    hidden = layers.GlobalMaxPooling1D()(layers.Conv1D(16, 3, activation="relu")(hidden))
    model = keras.Model(tokens, layers.Dense(1, activation="sigmoid")(hidden))
    model.compile(DistributedOptimizer(keras.optimizers.Adam(0.01)), "binary_crossentropy", metrics=["accuracy"])
    model.fit(train, validation_data=train, epochs=4, verbose=0)
    text = keras.Input((1,), dtype="string")
    whole = keras.Model(text, model(vectorize(text)))
    whole.compile(loss="binary_crossentropy", metrics=["accuracy"])
    return whole.evaluate(tf.constant(lines)[:, None], right, verbose=0, return_dict=True)


class Autoencoder(keras.Model):
    """Only its train step makes its weights; it cannot be called."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential([layers.Flatten(), layers.Dense(16, activation="relu"), layers.Dense(4)])
        self.decoder = keras.Sequential([layers.Dense(784, activation="sigmoid"), layers.Reshape((28, 28))])
        self.noise = keras.random.SeedGenerator(1)
        self.total, self.steps = keras.metrics.Mean(name="loss"), 0

    @property
    def metrics(self):
        return [self.total]

    def train_step(self, data):
        with tf.GradientTape() as tape:
            mean, log_variance = ops.split(self.encoder(data), 2, axis=1)
            drawn = keras.random.normal(ops.shape(mean), seed=self.noise)
            again = self.decoder(mean + ops.exp(0.5 * log_variance) * drawn)
            loss = ops.mean(keras.losses.binary_crossentropy(data, again))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.total.update_state(loss)
        return {"loss": self.total.result()}


def weights_of_a_train_step():
    model = Autoencoder()
    model.compile(optimizer=DistributedOptimizer(keras.optimizers.Adam()))
    history = model.fit(images, epochs=2, batch_size=16, verbose=0).history
    return {**history, "iterations": int(model.optimizer.iterations), "weights": len(model.trainable_weights)}


class Seen(keras.metrics.Metric):
    """Samples, in a variable that is put together as its name says."""

    def __init__(self, how):
        super().__init__(name=how)
        self.count = self.add_variable((), "zeros", aggregation=how, name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.count.assign_add(ops.cast(ops.shape(y_true)[0], "float32"))

    def result(self):
        return self.count


class Highest(keras.metrics.Metric):
    """The highest output, in a variable whose aggregation was forgotten."""

    def __init__(self):
        super().__init__(name="highest")
        self.most = self.add_variable((), keras.initializers.Constant(-1.0), name="most")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.most.assign(ops.maximum(self.most, ops.max(y_pred)))

    def reset_state(self):
        self.most.assign(-1.0)

    def result(self):
        return self.most


def metrics_of_all_kinds():
    x = rng.normal(size=(120, 6)).astype("float32")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1, activation="sigmoid")])
    ways = [Seen(how) for how in ("sum", "mean", "only_first_replica")]
    measures = [*ways, keras.metrics.AUC(name="auc"), keras.metrics.F1Score(threshold=0.5, name="f1"), Highest()]
    model.compile(DistributedOptimizer("adam"), "binary_crossentropy", metrics=measures)
    history = model.fit(x, (x[:, :1] > 0).astype("float32"), epochs=2, batch_size=10, verbose=0).history
    return {name: np.asarray(values).tolist() for name, values in history.items()}


def transferred():
    base = keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.GlobalAveragePooling2D()]
    )
    base.trainable = False
    inputs = keras.Input((28, 28, 1))
    hidden = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(inputs))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dropout(0.2)(base(hidden, training=False))))
    data = tf.data.Dataset.from_tensor_slices((images[..., None], np.arange(96) % 2)).batch(8).prefetch(2)
    before, moved, epochs = base.layers[0].kernel.numpy(), [], []
    for trainable in (False, True):
        base.trainable = trainable
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(DistributedOptimizer(keras.optimizers.Adam(0.01)), loss, metrics=["accuracy"])
        first = epochs[-1] + 1 if epochs else 0
        epochs += model.fit(data, epochs=first + 2, initial_epoch=first, verbose=0).epoch
        moved.append(float(np.abs(base.layers[0].kernel.numpy() - before).max()))
    return {"epochs": epochs, "moved": moved}


def series():
    wave = np.sin(np.arange(400) / 10).astype("float32")[:, None]
    data = keras.utils.timeseries_dataset_from_array(wave[:-20], wave[20:], sequence_length=20, batch_size=32)
    inputs = keras.Input((20, 1))
    model = keras.Model(inputs, layers.Dense(1)(layers.LSTM(8)(inputs)))
    model.compile(DistributedOptimizer(keras.optimizers.Adam(0.02)), "mse")
    return model.fit(data, epochs=3, verbose=0, steps_per_epoch=None).history


CASES = (
    pairs_that_alternate, texts, weights_of_a_train_step, metrics_of_all_kinds, transferred, series,
)  # fmt: skip
for case in CASES:
    seen[case.__name__] = case()
    (out / f"kinds-{rank}.json").write_text(json.dumps(seen, default=float))
