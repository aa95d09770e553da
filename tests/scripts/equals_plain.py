"""With one worker, servers and plain Keras take the same steps: prints the largest relative difference per case."""

import json
import sys

import keras
import numpy as np

from downpour import DistributedOptimizer

rng = np.random.default_rng(1)
x = rng.normal(size=(96, 6)).astype(np.float32)
y = (x @ rng.normal(size=6) > 0).astype(np.int32)
optimizers = keras.optimizers
schedules = optimizers.schedules

CASES = {
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.05, momentum=0.8, nesterov=True),
    "adagrad": lambda: optimizers.Adagrad(0.1),
    "rmsprop": lambda: optimizers.RMSprop(0.01, rho=0.8, momentum=0.5),
    "adam": lambda: optimizers.Adam(0.01, beta_1=0.8),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.01),
    "decayed": lambda: optimizers.SGD(0.1, weight_decay=0.01),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "centered": lambda: optimizers.RMSprop(0.01, centered=True),
    "nadam": lambda: optimizers.Nadam(0.01),
    "adamax": lambda: optimizers.Adamax(0.01),
    "adadelta": lambda: optimizers.Adadelta(1.0),
    "ftrl": lambda: optimizers.Ftrl(0.1),
    "lion": lambda: optimizers.Lion(0.003),
    "clipnorm": lambda: optimizers.SGD(0.5, clipnorm=0.05),
    "global_clipnorm": lambda: optimizers.SGD(0.5, global_clipnorm=0.05),
    "clipvalue": lambda: optimizers.SGD(0.5, clipvalue=0.01),
    "exponential": lambda: optimizers.SGD(schedules.ExponentialDecay(0.5, 5, 0.7)),
    "staircase": lambda: optimizers.Adam(schedules.ExponentialDecay(0.05, 5, 0.5, staircase=True)),
    "cosine": lambda: optimizers.SGD(schedules.CosineDecay(0.0, 20, warmup_target=0.5, warmup_steps=6)),
    "piecewise": lambda: optimizers.SGD(schedules.PiecewiseConstantDecay([4, 11], [0.5, 0.2, 0.01])),
}


def model() -> keras.Model:
    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(8, activation="tanh", kernel_regularizer="l2"),
            layers.BatchNormalization(momentum=0.9),
            layers.Dense(2, activation="softmax"),
        ]
    )


def compiled(network: keras.Model, optimizer) -> keras.Model:
    network.compile(
        optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    return network


def fitted(network: keras.Model, epochs: int) -> list[float]:
    data = {"validation_data": (x[:32], y[:32])}
    history = network.fit(x, y, epochs=epochs, batch_size=16, shuffle=False, verbose=0, **data).history
    assert history.keys() == {"accuracy", "loss", "val_accuracy", "val_loss"}
    return [*history["loss"], *history["val_loss"]]


def trained(optimizer, wrap) -> tuple[list[np.ndarray], list[float]]:
    """Two calls of fit, a third after the model was saved and loaded, a fourth that servers have nothing to do with."""
    network = compiled(model(), wrap(optimizer))
    losses = fitted(network, 2) + fitted(network, 1)
    network.save(f"{sys.argv[1]}.keras")
    loaded = keras.models.load_model(f"{sys.argv[1]}.keras")
    assert type(loaded.optimizer).__module__.startswith("keras.")
    losses += fitted(compiled(loaded, wrap(loaded.optimizer)), 1)
    again = keras.models.load_model(f"{sys.argv[1]}.keras")
    losses += fitted(again, 1)
    return network.get_weights() + loaded.get_weights() + again.get_weights(), losses


report = {}
for name, make in CASES.items() if len(sys.argv) < 3 else [(name, CASES[name]) for name in sys.argv[2:]]:
    plain, plain_losses = trained(make(), lambda optimizer: optimizer)
    servers, losses = trained(make(), DistributedOptimizer)
    if len(losses) < len(plain_losses):
        sys.exit(130)  # Ctrl-C has ended a fit
    weights = max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-6)) for a, b in zip(plain, servers, strict=True))
    apart = max(abs(a - b) / a for a, b in zip(plain_losses, losses, strict=True))
    moved = max(float(np.abs(a - b).max()) for a, b in zip(plain, model().get_weights(), strict=False))
    report[name] = {"weights": weights, "losses": apart, "moved": moved}
with open(sys.argv[1], "w") as file:
    json.dump(report, file)
