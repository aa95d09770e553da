"""Rows of kinds of models, of their variables and of data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from downpour import DistributedOptimizer, LeasedDataset
from tests.support.fidelity.row import (
    BATCH,
    DIFFERENT,
    JOINT,
    REFUSED,
    Result,
    Row,
    X,
    Y,
    compiled,
    data,
    fitted,
    result,
    small_model,
)

layers = keras.layers
OWN_STATISTICS = "each worker's batch has statistics of its own; the moving statistics are averaged"


def _layer(middle: Callable[[], Any]) -> Callable[[], Result]:
    """Return a function that trains a model with a layer in the middle, which is built after the seed is set."""

    def run() -> Result:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="tanh"), middle(), layers.Dense(2)])
        return fitted(compiled(model))

    return run


class Subclassed(keras.Model):
    """A model that is built by its first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = layers.Dense(3, activation="tanh"), layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.second(self.first(x))


class Stepped(keras.Model):
    """A model with the train step of Keras's guide."""

    def train_step(self, batch: Any) -> Any:
        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


class Partial(Stepped):
    """A model whose train step trains some of its weights."""

    def train_step(self, batch: Any) -> Any:
        x, y = batch
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self(x, training=True) - y) ** 2)
        some = self.trainable_variables[:2]
        self.optimizer.apply(tape.gradient(loss, some), some)
        return {"loss": loss}


def _functional(kind: type[keras.Model], optimizer: Any = None) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    return compiled(kind(inputs, layers.Dense(2)(layers.Dense(3, activation="tanh")(inputs))), optimizer)


def _subclassed() -> Result:
    keras.utils.set_random_seed(1)
    return fitted(compiled(Subclassed()))


def _frozen() -> Result:
    model = small_model()
    model.layers[0].trainable = False
    return fitted(compiled(model))


def _unfrozen() -> Result:
    model = small_model()
    optimizer = DistributedOptimizer(keras.optimizers.SGD(0.05, momentum=0.9))
    compiled(model, optimizer).fit(data(), epochs=1, verbose=0)
    model.layers[0].trainable = False
    compiled(model, optimizer).fit(data(), epochs=1, verbose=0)
    model.layers[0].trainable = True
    return fitted(compiled(model, optimizer))


def _two_fits() -> Result:
    model = compiled(small_model(), "adam")
    model.fit(data(), epochs=1, verbose=0)
    return fitted(model)


def _loaded() -> Result:
    model = compiled(small_model(), "adam")
    model.fit(data(), epochs=1, verbose=0)
    model.save("model.keras")
    loaded = keras.models.load_model("model.keras")
    history = loaded.fit(data(), epochs=2, verbose=0)
    return result(loaded, history)


def _constraint(constraint: Any) -> Callable[[], Result]:
    return lambda: fitted(compiled(small_model(kernel_constraint=constraint)))


class OwnConstraint(keras.constraints.Constraint):
    """A constraint that Keras does not have."""

    def __call__(self, w: Any) -> Any:
        return keras.ops.clip(w, -0.1, 0.1)


def _regularizer() -> Result:
    return fitted(compiled(small_model(kernel_regularizer=keras.regularizers.L1L2(0.01, 0.02))))


def _global_policy(policy: str) -> Callable[[], Result]:
    def run() -> Result:
        keras.config.set_dtype_policy(policy)
        return fitted(compiled(small_model()))

    return run


def _policy(policy: str) -> Callable[[], Result]:
    def run() -> Result:
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.Input((4,)), layers.Dense(3, activation="tanh", dtype=policy), layers.Dense(2, dtype=policy)]
        )
        return fitted(compiled(model))

    return run


def _stateful() -> Result:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(BATCH * JOINT, 4)),
            layers.Reshape((4, 1)),
            layers.LSTM(3, stateful=True),
            layers.Dense(2),
        ]
    )
    return fitted(compiled(model))


class Counting(keras.layers.Layer):
    """A layer with a variable that is not trained and that every step changes."""

    def __init__(self, dtype_of_count: str, **options: Any) -> None:
        super().__init__(**options)
        self.kind = dtype_of_count
        zero = "zeros"
        self.count = self.add_weight(shape=(), dtype=dtype_of_count, initializer=zero, trainable=False, name="count")

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            one = self.count + 1 if self.kind != "bool" else keras.ops.logical_not(self.count)
            self.count.assign(keras.ops.cast(one, self.kind))
        return x


class Batches(keras.utils.PyDataset):
    """The fixed batches as a PyDataset."""

    def __len__(self) -> int:
        return -(-len(X) // (BATCH * JOINT))

    def __getitem__(self, index: int) -> Any:
        rows = slice(index * BATCH * JOINT, (index + 1) * BATCH * JOINT)
        return X[rows], Y[rows]


def _generator() -> Iterator[Any]:
    while True:
        for x, y in data():
            yield x.numpy(), y.numpy()


def _generated() -> Result:
    model = compiled(small_model())
    steps = len(X) // (BATCH * JOINT)
    history = model.fit(_generator(), epochs=2, steps_per_epoch=steps, verbose=0)
    return result(model, history)


def _leased() -> Result:
    model = compiled(small_model())
    history = model.fit(LeasedDataset(X, Y, batch_size=BATCH * JOINT), epochs=2, verbose=0)
    found = result(model, history)
    return {**found, "weights": [], "losses": []}  # the order of samples is drawn


def _structured() -> Result:
    keras.utils.set_random_seed(1)
    inputs = {"left": keras.Input((2,)), "right": keras.Input((2,))}
    joined = layers.Concatenate()([inputs["left"], inputs["right"]])
    model = compiled(keras.Model(inputs, layers.Dense(2)(joined)))
    return fitted(model, data().map(lambda x, y: ({"left": x[:, :2], "right": x[:, 2:]}, y)))


def _unknown_length() -> Result:
    unknown = data().filter(lambda x, y: True)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 40)
    return fitted(compiled(small_model(), keras.optimizers.SGD(schedule)), unknown)


def _sparse() -> Result:
    sparse = data().map(lambda x, y: (tf.sparse.from_dense(tf.where(x > 0, x, 0.0)), y))
    return fitted(compiled(small_model()), sparse)


def _pandas() -> Result:
    import pandas  # type: ignore[import-untyped]

    frame = pandas.DataFrame(X)
    return fitted(compiled(small_model()), frame, y=pandas.DataFrame(Y), batch_size=BATCH * JOINT, shuffle=False)


def _tensors() -> Result:
    return fitted(compiled(small_model()), tf.constant(X), y=tf.constant(Y), batch_size=BATCH * JOINT, shuffle=False)


ROUNDED = "16-bit numbers are rounded for each worker's batch"
KERAS_COUNTS = (
    "Keras 3.15 counts one iteration too many at the end of each epoch, so that schedules run ahead; ours do not"
)
MODELS = [
    Row("model", "Sequential", lambda: fitted(compiled(small_model()))),
    Row("model", "Functional", lambda: fitted(_functional(keras.Model))),
    Row("model", "subclassed, built by its first batch", _subclassed),
    Row("model", "train_step of its own", lambda: fitted(_functional(Stepped))),
    Row("model", "train_step that trains some of the weights",
        lambda: fitted(_functional(Partial, keras.optimizers.AdamW(0.01, weight_decay=0.1)))),
    Row("model", "frozen layer", _frozen),
    Row("model", "frozen, then unfrozen, with one optimizer", _unfrozen),
    Row("model", "two calls of fit", _two_fits),
    Row("model", "saved, loaded and trained on", _loaded, bsp="the file counts the batches of all workers"),
    Row("model", "regularizer", _regularizer),
    Row("model", "constraint MaxNorm", _constraint(keras.constraints.MaxNorm(0.3))),
    Row("model", "constraint MinMaxNorm", _constraint(keras.constraints.MinMaxNorm(0.2, 0.4, rate=0.5, axis=1))),
    Row("model", "constraint NonNeg", _constraint(keras.constraints.NonNeg())),
    Row("model", "constraint UnitNorm", _constraint(keras.constraints.UnitNorm(axis=[0, 1]))),
    Row("model", "constraint of the script's own", _constraint(OwnConstraint()), REFUSED, "constraint"),
    Row("model", "float64", _policy("float64"), REFUSED, "float64"),
    Row("model", "float16", _policy("float16"), REFUSED, "float16"),
    Row("model", "bfloat16", _policy("bfloat16"), REFUSED, "bfloat16"),
    Row("model", "policy mixed_float16", _global_policy("mixed_float16"), bsp=ROUNDED),
    Row("model", "policy mixed_bfloat16", _global_policy("mixed_bfloat16"), bsp=ROUNDED),
    Row("model", "layers in mixed_float16", _policy("mixed_float16"), bsp=ROUNDED),
    Row("model", "stateful RNN", _stateful, several="stateful", bsp="refused with several workers"),
    Row("layer", "BatchNormalization", _layer(lambda: layers.BatchNormalization()), bsp=OWN_STATISTICS),
    Row("layer", "LayerNormalization", _layer(lambda: layers.LayerNormalization())),
    Row("layer", "Dropout", _layer(lambda: layers.Dropout(0.3, seed=1)), bsp="each worker drops units of its own"),
    Row("layer", "GaussianNoise", _layer(lambda: layers.GaussianNoise(0.1, seed=1)),
        bsp="each worker draws noise of its own"),
    Row("layer", "ActivityRegularization", _layer(lambda: layers.ActivityRegularization(l2=0.1))),
    Row("layer", "SpectralNormalization", _layer(lambda: layers.SpectralNormalization(layers.Dense(4))),
        bsp=OWN_STATISTICS),
    Row("variable", "float32 counter", _layer(lambda: Counting("float32")), bsp="the differences are added"),
    Row("variable", "int32 counter", _layer(lambda: Counting("int32")), bsp="the differences are added"),
    Row("variable", "int64 counter", _layer(lambda: Counting("int64")), bsp="the differences are added"),
    Row("variable", "bool flag", _layer(lambda: Counting("bool")), bsp="worker 0's value"),
    Row("data", "tf.data", lambda: fitted(compiled(small_model()))),
    Row("data", "PyDataset", lambda: fitted(compiled(small_model()), Batches(), shuffle=False)),
    Row("data", "generator", _generated, bsp="steps_per_epoch counts the batches of all workers"),
    Row("data", "LeasedDataset", _leased),
    Row("data", "dict of inputs", _structured),
    Row("data", "length that is not known", _unknown_length, DIFFERENT,
        KERAS_COUNTS, bsp=KERAS_COUNTS),
    Row("data", "sparse tensors", _sparse),
    Row("data", "tensors", _tensors),
    Row("data", "pandas", _pandas, package="pandas"),
]  # fmt: skip


def model_rows() -> list[Row]:
    """Return the rows of models, layers, variables and data."""
    return MODELS
