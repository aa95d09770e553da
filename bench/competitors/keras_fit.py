"""Trains with Keras's `model.fit` in this process, and prints the result as one JSON line.

`python -m downpour.bench.competitors.keras_fit --data FILE.npz --model sigmoid100 --epochs 2`: a competitor of
`training.baselines`, and the reference of `training.quality`. `downpour run` runs it as a script, whose optimizer is
then distributed. The measurement
lasts from `on_train_begin` to `on_train_end` of a second `fit`. A first one, over a few batches, has compiled the step
before, and the initial weights have been restored.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from downpour.bench.flags import FlagParser
from downpour.worker.catalog.datasets import load, split
from downpour.worker.catalog.models import MODELS, build

OPTIMIZERS: Mapping[str, Callable[..., Any]] = {  # by the names of the server's optimizers
    "sgd": lambda keras, flags, **given: keras.optimizers.SGD(**given),
    "momentum": lambda keras, flags, **given: keras.optimizers.SGD(momentum=flags.momentum, **given),
    "adam": lambda keras, flags, **given: keras.optimizers.Adam(**given),
}
# Keras's classes for the server's schedules, from η, the number of updates, and the floor as a fraction of η.
SCHEDULES: Mapping[str, Callable[..., Any]] = {
    "linear": lambda of, rate, steps, floor: of.PolynomialDecay(rate, steps, rate * floor),
    "cosine": lambda of, rate, steps, floor: of.CosineDecay(rate, steps, alpha=floor),
}


def main(argv: list[str]) -> int:
    """Train, print the result, and return 0."""
    flags = _parser().parse_args(argv)
    print(json.dumps(train(flags)), flush=True)
    return 0


def train(flags: argparse.Namespace) -> dict[str, Any]:
    """Compile the training step on a few batches, then train.

    Returns:
        `samples`, `wall_s`, `samples_per_s`, `epochs`, `warmup_s`, the last epoch's mean `loss` and `accuracy` (None
        unless the model is a classifier), whether Keras chose XLA (`xla`), and with `--evaluate`
        `test_accuracy` and `test_loss`.
    """
    import keras
    import tensorflow as tf

    from downpour.worker.fit.optimizer.distributed_optimizer import DistributedOptimizer

    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(flags.threads)
    tf.config.threading.set_inter_op_parallelism_threads(flags.threads)
    keras.utils.set_random_seed(flags.seed)
    dataset = load(flags.data)
    held_out = split(dataset, flags.validation_split)
    x, y = held_out.x_train * np.float32(dataset.scale), _targets(held_out.y_train)
    model = build(flags.model, dataset.input_shape, dataset.classes)
    model.compile(
        DistributedOptimizer(optimizer(flags)),
        model.loss,
        metrics=["accuracy"] if "categorical" in str(model.loss) else [],
        steps_per_execution=flags.steps_per_execution,
    )
    warmup_s = _warm_up(model, x, y, flags)
    stopwatch, more = _stopwatch(), {}
    callbacks = [stopwatch]
    if flags.early_stopping:
        callbacks.append(keras.callbacks.EarlyStopping("val_loss", patience=flags.early_stopping))
        more["validation_data"] = (
            held_out.x_validation * np.float32(dataset.scale),
            _targets(held_out.y_validation),
        )
    history = model.fit(
        x, y, batch_size=flags.batch_size, epochs=flags.epochs, verbose=0, callbacks=callbacks, **more
    ).history
    samples = len(x) * len(history["loss"])
    result = {
        "samples": samples,
        "wall_s": stopwatch.wall_s,
        "samples_per_s": samples / stopwatch.wall_s,
        "epochs": len(history["loss"]),
        "warmup_s": warmup_s,
        "loss": history["loss"][-1],
        "accuracy": history["accuracy"][-1] if "accuracy" in history else None,
        "xla": bool(model.jit_compile),
    }
    if flags.evaluate:
        from downpour.worker.compute.evaluate import Evaluator
        from downpour.worker.compute.flat_model import read_weights

        found = Evaluator(model, dataset.scale)(read_weights(model), held_out.x_test, held_out.y_test)
        result |= {"test_loss": found.loss, "test_accuracy": found.accuracy}
    return result


def optimizer(flags: argparse.Namespace) -> Any:
    """Return Keras's optimizer with the same schedule and the same clipping by global norm as on the server."""
    import keras

    name, _, values = flags.schedule.partition(":")
    rate: Any = flags.learning_rate
    if name in SCHEDULES:
        steps, _, floor = values.partition(",")
        rate = SCHEDULES[name](keras.optimizers.schedules, rate, int(steps), float(floor or 0))
    elif name != "constant":
        raise ValueError(f"--schedule must be constant, {', '.join(SCHEDULES)}. Received: {flags.schedule!r}.")
    return OPTIMIZERS[flags.optimizer](
        keras, flags, learning_rate=rate, global_clipnorm=flags.clip_norm if flags.clip_norm else None
    )


def _targets(y: Any) -> Any:
    """Return class numbers as `int32`, which Keras's losses expect, and targets of a regression unchanged."""
    return y if y.dtype.kind == "f" else y.astype("int32")


def _warm_up(model: Any, x: Any, y: Any, flags: argparse.Namespace) -> float:
    """Compile the training step on the first batches, restore the weights, and return the time in s."""
    if flags.warmup_calls == 0:
        return 0.0
    start = time.perf_counter()
    few = flags.warmup_calls * flags.steps_per_execution * flags.batch_size
    weights = model.get_weights()
    model.fit(x[:few], y[:few], batch_size=flags.batch_size, verbose=0)
    model.set_weights(weights)
    return time.perf_counter() - start


def _stopwatch() -> Any:
    """Return a callback that measures the duration of `fit` and does no work per batch."""
    import keras

    class Stopwatch(keras.callbacks.Callback):
        wall_s = 0.0

        def on_train_begin(self, logs: Any = None) -> None:
            self.start = time.perf_counter()

        def on_train_end(self, logs: Any = None) -> None:
            self.wall_s = time.perf_counter() - self.start

    return Stopwatch()


def _parser() -> argparse.ArgumentParser:
    parser = FlagParser(
        prog="python -m downpour.bench.competitors.keras_fit",
        description="Train with model.fit in one process and print the result as JSON.",
    )
    parser.add_argument("--data", required=True, help="a dataset's name, or an .npz file")
    parser.add_argument("--model", choices=list(MODELS), default="sigmoid100")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="sgd")
    parser.add_argument("--momentum", type=float, default=0.9, help="momentum of the optimizer momentum")
    parser.add_argument(
        "--schedule", default="constant", metavar="NAME", help="linear or cosine, as for downpour train"
    )
    parser.add_argument("--clip-norm", type=float, default=0.0, help="largest norm of a gradient; 0: not clipped")
    parser.add_argument(
        "--early-stopping",
        type=int,
        default=0,
        metavar="EPOCHS",
        help="epochs without a lower validation loss; 0: never",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps-per-execution", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="intra-op and inter-op threads; 0: TensorFlow's default")
    parser.add_argument("--validation-split", type=float, default=0.0, help="fraction that is held out and not used")
    parser.add_argument("--warmup-calls", type=int, default=20, help="steps before the measurement; 0: none")
    parser.add_argument("--evaluate", action="store_true", help="evaluate on the test set at the end")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
