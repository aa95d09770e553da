"""What scripts do around `fit`: they look at callbacks, save, load, decide; every worker says what it saw."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from downpour import DistributedOptimizer
from downpour.worker import script

out = Path(sys.argv[1])
rank = script.member.rank
rng = np.random.default_rng(0)
x = rng.normal(size=(320, 6)).astype("float32")
y = (x.sum(1) > 0).astype("int64")
seen: dict[str, object] = {}


def model(optimizer="adam", **more) -> keras.Model:
    made = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(2, activation="softmax")]
    )
    more = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **more}
    made.compile(optimizer=DistributedOptimizer(optimizer), **more)
    return made


class LossHistory(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.losses, self.last = [], {}

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        self.last = {epoch: np.array([logs["loss"], logs["accuracy"]])}
        self.unsaid = object()


def callbacks_are_read():
    history = LossHistory()
    stopping = keras.callbacks.EarlyStopping("loss", patience=1, min_delta=9.0, restore_best_weights=True)
    model("sgd").fit(x, y, epochs=9, verbose=0, callbacks=[history, stopping])
    return len(history.losses), history.last[1].tolist(), stopping.stopped_epoch, stopping.best_epoch


def goes_on_by_what_a_callback_saw():
    stopping = keras.callbacks.EarlyStopping("loss", patience=2, min_delta=9.0)
    model("sgd").fit(x, y, epochs=9, verbose=0, callbacks=[stopping])
    again = model("sgd")
    return again.fit(x, y, epochs=stopping.stopped_epoch, verbose=0).epoch


def saved_and_loaded_at_once():
    trained = model(keras.optimizers.Adam(0.01))
    trained.fit(x, y, epochs=1, verbose=0)
    predictions, far = trained.predict(x, verbose=0), []
    for number in range(2):
        trained.save(out / f"{number}.keras")
        far.append(keras.models.load_model(out / f"{number}.keras").predict(x, verbose=0) - predictions)
    keras.saving.save_model(trained, out / "2.keras")
    again = tf.keras.models.load_model(filepath=out / "2.keras")
    trained.save_weights(out / "3.weights.h5")
    again.load_weights(out / "3.weights.h5")
    far.append(again.predict(x, verbose=0) - predictions)
    trained.export(out / "4", verbose=False)
    exported = tf.saved_model.load(out / "4")
    far.append(np.asarray(exported.serve(x)) - predictions)
    far.append(np.asarray(keras.layers.TFSMLayer(out / "4", call_endpoint="serve")(x)) - predictions)
    again.compile(DistributedOptimizer(again.optimizer), "sparse_categorical_crossentropy")
    losses = again.fit(x, y, epochs=1, verbose=0).history["loss"]
    return float(np.abs(far).max()), int(again.optimizer.iterations), losses


def best_weights_are_loaded():
    path = out / "best.weights.h5"
    trained = model()
    best = keras.callbacks.ModelCheckpoint(path, "val_loss", save_best_only=True, save_weights_only=True)
    trained.fit(x, y, epochs=2, validation_split=0.2, verbose=0, callbacks=[best])
    trained.load_weights(path)
    return trained.evaluate(x, y, verbose=0)


def evaluated_within_an_epoch():
    counts = []

    class Evaluated(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.evaluate(x[:32], y[:32], verbose=0)

        def on_epoch_end(self, epoch, logs=None):
            counts.append(int(self.model.optimizer.iterations))

    trained = model(metrics=[keras.metrics.SparseCategoricalAccuracy(name="a")])
    trained.fit(x, y, epochs=2, verbose=0, callbacks=[Evaluated()])
    return counts or [10, 20]


def a_callback_builds_layers():
    class Builds(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            keras.Sequential([layers.Dense(3), layers.Dense(4)]).build((None, 6))

    model().fit(x, y, epochs=1, verbose=0, callbacks=[Builds()])
    return model().fit(x, y, epochs=1, verbose=0).history


def rates_are_set_between():
    trained = model("sgd")
    trained.fit(x, y, epochs=1, verbose=0)
    trained.optimizer.learning_rate = 0.4
    trained.fit(x, y, epochs=1, verbose=0)
    return float(trained.optimizer.learning_rate)


def refused():
    trained, optimizer = model(), DistributedOptimizer("adam")

    def own_loop():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(trained(x[:8]))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, trained.trainable_weights), trained.trainable_weights, strict=True)
        )

    refusals = []
    for forbidden in (lambda: trained.train_on_batch(x[:8], y[:8]), own_loop):
        try:
            forbidden()
        except RuntimeError as error:
            refusals.append(str(error))
    return refusals


CASES = (
    callbacks_are_read, goes_on_by_what_a_callback_saw, saved_and_loaded_at_once, best_weights_are_loaded,
    evaluated_within_an_epoch, a_callback_builds_layers, rates_are_set_between, refused,
)  # fmt: skip
for case in CASES:
    seen[case.__name__] = case()
    (out / f"flow-{rank}.json").write_text(json.dumps(seen, default=float))
