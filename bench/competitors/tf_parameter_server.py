"""Trains with TensorFlow's parameter server, and prints the result as one JSON line.

`python -m downpour.bench.competitors.tf_parameter_server --data FILE.npz --model sigmoid100 --steps-per-call 20`:
a competitor of `training.baselines`. It follows TensorFlow's tutorial for ParameterServerStrategy with a custom
training loop, the only way with Keras 3 (`model.fit` raises an error): one `tf.distribute.Server` process per server
and worker, a coordinator that schedules a `tf.function`, and tf.data in each worker. Model and optimizer are those of
Keras 3, created under `strategy.scope()`, so that the server holds their variables.

It includes the usual optimizations: samples are gathered by index from memory, as in `model.fit`; the metrics are
summed in the function and sent to the server once per call; nothing is fetched during the measurement.

A process with one inter-op thread hangs at the first call. Each process therefore has one more than there are workers,
as in the tutorial; computation has one intra-op thread, as in the other competitors. TensorFlow's servers listen on
free ports of all interfaces of the machine during the measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from downpour.bench.competitors.tf_cluster import Cluster, Placement, servers
from downpour.worker.catalog.datasets import Dataset, load
from downpour.worker.catalog.models import MODELS


def main(argv: list[str]) -> int:
    """Run the servers, coordinate a training, and print the result."""
    flags = _parser().parse_args(argv)
    flags.inter_op = flags.inter_op or flags.workers + 1
    with ExitStack() as stack:
        folder = flags.scratch or stack.enter_context(tempfile.TemporaryDirectory(prefix="tf-ps-"))
        place = Placement(flags.ps_host, flags.worker_host, tuple(flags.ps_before.split()))
        cluster = stack.enter_context(servers(flags.workers, flags.threads, flags.inter_op, place))
        print(json.dumps(train(flags, cluster, Path(folder))), flush=True)
    # Threads of the strategy would continue to look for the servers.
    os._exit(0)


def train(flags: argparse.Namespace, cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Compile the training step on a few batches, then train.

    Returns:
        `samples`, `wall_s`, `samples_per_s`, `warmup_s`, and the last epoch's mean `loss` and `accuracy`.
    """
    import keras
    import tensorflow as tf

    strategy, coordinator = _connect(flags, cluster)
    keras.utils.set_random_seed(flags.seed)
    dataset = load(flags.data)
    with strategy.scope():
        model = MODELS[flags.model].builder(dataset.input_shape, dataset.classes)
        optimizer = keras.optimizers.SGD(flags.learning_rate)
        optimizer.build(model.trainable_variables)
        # Totals of the epochs before the last one, and of the last one, which `model.fit` reports.
        totals = [tf.Variable(tf.zeros(3), name=name) for name in ("before", "last")]
    batches = iter(coordinator.create_per_worker_dataset(_dataset_fn(dataset, folder, flags)))
    calls = [_call(strategy, model, optimizer, total, flags) for total in totals]
    weights = [variable.numpy() for variable in model.variables]
    warm = max(4, flags.warmup_steps // flags.steps_per_call) * flags.workers
    warmup_s = _run(coordinator, batches, calls, (warm, warm))
    for variable, value in zip(model.variables, weights, strict=True):
        variable.assign(value)
    for total in totals:
        total.assign(tf.zeros(3))
    count = len(dataset.x_train) // flags.batch_size // flags.steps_per_call
    wall_s = _run(coordinator, batches, calls, (count * (flags.epochs - 1), count))
    before, (loss, correct, last) = (total.numpy().tolist() for total in totals)
    samples = int(before[2] + last)
    return {
        "samples": samples,
        "wall_s": wall_s,
        "samples_per_s": samples / wall_s,
        "warmup_s": warmup_s,
        "loss": loss / last,
        "accuracy": correct / last,
    }


def _connect(flags: argparse.Namespace, cluster: Cluster) -> tuple[Any, Any]:
    """Return the strategy and the coordinator of a running cluster."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(flags.threads)
    tf.config.threading.set_inter_op_parallelism_threads(flags.inter_op)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(tf.train.ClusterSpec(cluster), rpc_layer="grpc")
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    return strategy, tf.distribute.coordinator.ClusterCoordinator(strategy)


def _run(coordinator: Any, batches: Any, calls: Sequence[Any], counts: Sequence[int]) -> float:
    """Schedule each function `count` times, wait for all calls, and return the time in s."""
    start = time.perf_counter()
    for call, count in zip(calls, counts, strict=True):
        for _ in range(count):
            coordinator.schedule(call, args=(batches,))
    coordinator.join()
    return time.perf_counter() - start


def _dataset_fn(dataset: Dataset, folder: Path, flags: argparse.Namespace) -> Callable[[], Any]:
    """Return the function that creates a worker's batches from samples in memory, in a different order per worker.

    The samples are passed as files: in the graph of the function they would be constants, sent to every worker.
    """
    import tensorflow as tf

    count, shape = len(dataset.x_train), dataset.input_shape
    x_file, y_file = str(folder / "x"), str(folder / "y")
    (dataset.x_train * np.float32(dataset.scale)).tofile(x_file)
    dataset.y_train.astype(np.int32).tofile(y_file)

    def batches() -> Any:
        x = tf.reshape(tf.io.decode_raw(tf.io.read_file(x_file), tf.float32), [count, *shape])
        y = tf.io.decode_raw(tf.io.read_file(y_file), tf.int32)
        # All workers run this graph with the same seeds: each starts at a different position of the same order.
        start = tf.cast(tf.timestamp() * 1e6, tf.int64) % count
        order = tf.data.Dataset.range(count).shuffle(count).repeat().skip(start)
        return (
            order.batch(flags.batch_size, drop_remainder=True)
            .map(lambda chosen: (tf.gather(x, chosen), tf.gather(y, chosen)))
            .prefetch(tf.data.AUTOTUNE)
        )

    return batches


def _call(strategy: Any, model: Any, optimizer: Any, totals: Any, flags: argparse.Namespace) -> Any:
    """Return the function to be scheduled: `--steps-per-call` steps, whose metrics are added on the server."""
    import keras
    import tensorflow as tf

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            predicted = model(x, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(y, predicted)
            loss = tf.reduce_mean(losses)
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [weight.value for weight in weights]), weights)
        correct = tf.equal(tf.argmax(predicted, axis=1, output_type=tf.int32), y)
        return tf.stack(
            [
                tf.reduce_sum(losses),
                tf.reduce_sum(tf.cast(correct, tf.float32)),
                tf.cast(tf.size(y), tf.float32),
            ]
        )

    def one(batches: Any) -> Any:
        return strategy.run(step, args=next(batches))

    @tf.function
    def call(batches: Any) -> None:
        if flags.steps_per_call == 1:
            totals.assign_add(one(batches))
            return
        found = tf.zeros(3)
        for _ in tf.range(flags.steps_per_call):
            found += one(batches)
        totals.assign_add(found)

    return call


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m downpour.bench.competitors.tf_parameter_server",
        description="TensorFlow's ParameterServerStrategy.",
    )
    parser.add_argument("--data", required=True, help="a dataset's name, or an .npz file")
    parser.add_argument("--model", choices=list(MODELS), default="sigmoid100")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps-per-call", type=int, default=1, help="steps in one scheduled function")
    parser.add_argument("--threads", type=int, default=1, help="intra-op threads of each process")
    parser.add_argument("--inter-op", type=int, help="inter-op threads of each process; default: workers + 1")
    parser.add_argument("--ps-host", default="localhost", help="host under which the server is reached")
    parser.add_argument("--worker-host", default="localhost", help="host under which the workers are reached")
    parser.add_argument("--ps-before", default="", help="command that executes another where the server runs")
    parser.add_argument("--scratch", type=Path, help="an empty folder for the samples; default: a temporary one")
    parser.add_argument("--warmup-steps", type=int, default=40, help="per worker, before the clock; at least 4 calls")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
