"""What Keras can do, case by case, with servers that train; every worker writes down what it saw."""

import hashlib
import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer
from downpour.worker import script

out = Path(sys.argv[1])
wanted = sys.argv[2:]
rank = script.member.rank
layers, optimizers, callbacks = keras.layers, keras.optimizers, keras.callbacks
rng = np.random.default_rng(5)
x = rng.normal(size=(203, 6)).astype(np.float32)
y = (x @ rng.normal(size=6) > 0).astype(np.int32)
seen: dict[str, dict] = {}


def small(*extra) -> keras.Model:
    return keras.Sequential(
        [layers.Input((6,)), layers.Dense(8, activation="relu"), *extra, layers.Dense(2, activation="softmax")]
    )


def compiled(model: keras.Model, optimizer="sgd", **more) -> keras.Model:
    more = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **more}
    model.compile(optimizer=DistributedOptimizer(optimizer), **more)
    return model


def note(case: str, model: keras.Model, history, **more) -> None:
    digest = hashlib.sha256(b"".join(np.asarray(w).tobytes() for w in model.get_weights() if w.dtype.kind == "f"))
    seen[case] = {"weights": digest.hexdigest(), "history": history.history, "epochs": history.epoch, **more}


def sequential():
    model = compiled(small(layers.BatchNormalization(), layers.Dropout(0.3)), optimizers.SGD(0.1))
    before = [w.copy() for w in model.get_weights()]
    history = model.fit(x, y, epochs=3, validation_split=0.2, verbose=0)
    moving = model.layers[1].moving_mean.numpy()
    note("sequential", model, history, moving=float(np.abs(moving).max()),
         moved=float(np.abs(before[0] - model.get_weights()[0]).max()))  # fmt: skip


def functional():
    shared = layers.Dense(4, activation="tanh", name="shared")
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    merged = layers.Concatenate()([shared(a), shared(b)])
    model = keras.Model(
        {"a": a, "b": b},
        {"p": layers.Dense(2, activation="softmax", name="p")(merged), "q": layers.Dense(1, name="q")(merged)},
    )
    model.compile(
        optimizer=DistributedOptimizer(optimizers.Adam(0.01)),
        loss={"p": "sparse_categorical_crossentropy", "q": "mse"},
        loss_weights={"p": 1.0, "q": 0.5},
        metrics={"p": ["accuracy"], "q": ["mae"]},
    )
    targets = {"p": y, "q": x[:, :1]}
    history = model.fit(
        {"a": x, "b": x[::-1]}, targets, epochs=2, verbose=0, sample_weight={"p": np.ones(203), "q": np.ones(203)}
    )
    note("functional", model, history)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = (
            layers.Dense(5, name="d"),
            layers.BatchNormalization(),
            layers.Dense(2, name="d"),
        )

    def call(self, inputs, training=False):
        return keras.ops.softmax(self.last(self.norm(self.first(inputs), training=training)))


def subclassed():
    model = compiled(Subclassed())
    note("subclassed", model, model.fit(x, y, epochs=2, class_weight={0: 1.0, 1: 2.0}, verbose=0))


def frozen():
    model = small()
    model.layers[0].trainable = False
    compiled(model, optimizers.Adam(0.01))
    kernel = model.layers[0].kernel.numpy()
    history = model.fit(x, y, epochs=1, verbose=0)
    kept = bool((model.layers[0].kernel.numpy() == kernel).all())
    model.layers[0].trainable = True
    compiled(model, optimizers.Adam(0.01))
    model.fit(x, y, epochs=1, verbose=0)
    note("frozen", model, history, kept=kept, moved=bool((model.layers[0].kernel.numpy() != kernel).any()))


class CustomStep(keras.Model):
    def train_step(self, data):
        inputs, targets = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self(inputs, training=True)[:, 0] - keras.ops.cast(targets, "float32")) ** 2)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"own_loss": loss}


def custom_step():
    inputs = keras.Input((6,))
    model = CustomStep(inputs, layers.Dense(1)(inputs))
    model.compile(optimizer=DistributedOptimizer(optimizers.SGD(0.05)))
    note("custom_step", model, model.fit(x, y, epochs=2, verbose=0))


def callbacks_():
    ran = []

    class Recorded(callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.rates, self.calls = [], 0

        def on_epoch_end(self, epoch, logs=None):
            self.calls += 1
            ran.append(epoch)
            self.rates.append(float(np.asarray(self.model.optimizer.learning_rate)))

    recorded = Recorded()
    model = compiled(small(), optimizers.SGD(0.1))
    history = model.fit(
        x, y, epochs=20, verbose=0, validation_split=0.3,
        callbacks=[
            callbacks.EarlyStopping("val_loss", patience=2, min_delta=10.0, restore_best_weights=True),
            callbacks.ReduceLROnPlateau("val_loss", patience=1, min_delta=10.0, factor=0.5),
            callbacks.ModelCheckpoint(str(out / "best.keras"), save_best_only=True, monitor="val_loss"),
            callbacks.TensorBoard(str(out / "tensorboard")),
            callbacks.CSVLogger(str(out / "log.csv")),
            recorded,
        ],
    )  # fmt: skip
    note("callbacks", model, history, rates=recorded.rates, calls=recorded.calls, ran=ran)


def scheduled():
    model = compiled(small(), optimizers.SGD(0.7))
    halved = callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    note("scheduled", model, model.fit(x, y, epochs=3, verbose=0, callbacks=[halved]))


def several():
    """What a script may do twice: fit, and build models with layers that never train."""
    model = compiled(small(), optimizers.Adam(optimizers.schedules.ExponentialDecay(0.05, 10, 0.9)))
    model.fit(x, y, epochs=2, verbose=0)
    once = int(model.optimizer.iterations)
    history = model.fit(x, y, epochs=4, initial_epoch=2, verbose=0, validation_data=(x, y))
    untrained = layers.Dense(6, trainable=False)
    second = compiled(keras.Sequential([layers.Input((6,)), untrained, layers.Dense(2, activation="softmax")]))
    second.fit(x, y, epochs=1, verbose=0)
    third = compiled(small())
    third.fit(x[:1], y[:1], epochs=2, verbose=0)  # one worker has the only sample
    iterations = [once, int(model.optimizer.iterations), int(third.optimizer.iterations)]
    note("several", model, history, iterations=iterations, rate=float(model.optimizer.learning_rate))


def terminate():
    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                self.model.stop_training = True

    model = compiled(small())
    note("terminate", model, model.fit(x, y, epochs=50, batch_size=4, verbose=0, callbacks=[Stop()]))


def data():
    model = compiled(small())
    whole = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(203, seed=1).batch(16)
    first = model.fit(whole, epochs=2, validation_data=(x, y), verbose=0)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 7

        def __getitem__(self, index):
            return x[index * 29 : index * 29 + 29], y[index * 29 : index * 29 + 29]

    second = model.fit(Batches(), epochs=1, verbose=0)

    def forever():
        while True:
            yield x[:16], y[:16]

    third = model.fit(forever(), steps_per_epoch=9, epochs=2, verbose=0)
    note("data", model, first, more=[second.history, third.history])


def execution():
    model = compiled(small(), steps_per_execution=4)
    first = model.fit(x, y, epochs=1, batch_size=8, verbose=0)
    compiled(model, run_eagerly=True)
    model.fit(x, y, epochs=1, batch_size=32, verbose=0)
    compiled(model, jit_compile=True)
    note("execution", model, model.fit(x, y, epochs=1, verbose=0), more=first.history)


def saved():
    model = compiled(small(layers.BatchNormalization()), optimizers.Adam(0.01))
    history = model.fit(x, y, epochs=2, verbose=0)
    path = out / "model.keras"
    model.save(path)
    model.save_weights(out / "model.weights.h5")
    evaluated = model.evaluate(x, y, verbose=0, return_dict=True)
    if rank == 0:
        np.save(out / "predictions.npy", model.predict(x, verbose=0))
    note("saved", model, history, evaluated=evaluated)


class Adversaries(keras.Model):
    """Two optimizers of the same weights, neither of them the model's own."""

    def __init__(self):
        super().__init__()
        self.half, self.mine, self.other = layers.Dense(1), DistributedOptimizer("adam"), optimizers.SGD()
        self.compile()

    def call(self, inputs):
        return self.half(inputs)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(self(data))
        gradients = tape.gradient(loss, self.half.trainable_variables)
        for optimizer in (self.mine, self.other):
            optimizer.apply(gradients, self.half.trainable_variables)
        return {"own": loss}


def changed_after_it_was_wrapped():
    model = compiled(small())
    model.optimizer.centralized = True
    model.fit(x, y, verbose=0)


def refused():
    def message(make) -> str:
        try:
            make()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    class Own(keras.constraints.MaxNorm):
        pass

    constrained = keras.Sequential([layers.Input((6,)), layers.Dense(2, kernel_constraint=Own())])
    constrained.compile(optimizer=DistributedOptimizer("sgd"), loss="mse")
    seen["refused"] = {
        "lamb": message(lambda: DistributedOptimizer(optimizers.Lamb())),
        "ema": message(lambda: DistributedOptimizer(optimizers.SGD(use_ema=True, gradient_accumulation_steps=2))),
        "attribute": message(changed_after_it_was_wrapped),
        "constraint": message(lambda: constrained.fit(x, x[:, :2], verbose=0)),
        "twice": message(lambda: Adversaries().fit(x, verbose=0)),
        "outside": message(lambda: DistributedOptimizer("sgd").apply([tf.zeros(1)], [keras.Variable([0.0])])),
        "backup": message(
            lambda: compiled(small()).fit(x, y, verbose=0, callbacks=[callbacks.BackupAndRestore(out / "b")])
            if rank == 0 else None
        ),
    }  # fmt: skip


CASES = {
    "sequential": sequential, "functional": functional, "subclassed": subclassed, "frozen": frozen,
    "custom_step": custom_step, "callbacks": callbacks_, "scheduled": scheduled, "several": several,
    "terminate": terminate, "data": data,
    "execution": execution, "saved": saved, "refused": refused,
}  # fmt: skip
for case in wanted or CASES:
    CASES[case]()
    (out / f"seen-{rank}.json").write_text(json.dumps(seen, default=float))
    print(case, "done", flush=True)
