"""Trains with TensorFlow's own parameter server, and prints what came of it as one JSON line.

`python -m bench.tf_parameter_server --data FILE.npz --model sigmoid100 --steps-per-call 20`: a contender of
`bench.baselines`. It follows TensorFlow's tutorial for ParameterServerStrategy with a custom training loop,
the only way that is left with Keras 3 (`model.fit` raises): one `tf.distribute.Server` process per server and
worker, a coordinator that schedules a `tf.function`, tf.data inside each worker. Model and optimizer are
Keras 3's, made under `strategy.scope()`, so that their variables live on the server.

What an expert would add is here: samples are gathered by index from memory, as `model.fit` does; the metrics
are summed in the function and sent to the server once per call; nothing is fetched while the clock runs.

A process with one inter-op thread hangs at the first call, so each has `--inter-op` of them; computation has
one intra-op thread, as in the other contenders. TensorFlow's servers listen on every interface of the
machine, on free ports, for as long as this takes.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from worker.datasets import Dataset, load, scale_of
from worker.models import MODELS

END_TIMEOUT_S = 10.0


def main(argv: list[str]) -> int:
    """Coordinates a training, or is one of its servers."""
    flags = _parser().parse_args(argv)
    if flags.serve:
        serve(flags)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tf-ps-")))
        cluster = stack.enter_context(_servers(flags))
        print(json.dumps(train(flags, cluster, folder)), flush=True)
    # The strategy's own threads go on looking for the servers; there is nothing left to wait for.
    os._exit(0)


def serve(flags: argparse.Namespace) -> None:
    """Is one server of the cluster until standard input ends, which it does when the coordinator ends."""
    import tensorflow as tf

    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=flags.threads,
        inter_op_parallelism_threads=flags.inter_op,
        device_count={"GPU": 0},
    )
    job, index = flags.serve.split(":")
    cluster = tf.train.ClusterSpec(json.loads(flags.cluster))
    server = tf.distribute.Server(cluster, job, int(index), protocol="grpc", config=config)
    print(server.target, flush=True)
    sys.stdin.read()
    os._exit(0)


def train(flags: argparse.Namespace, cluster: dict[str, list[str]], folder: Path) -> dict[str, Any]:
    """Warms up and trains.

    Returns:
        `samples`, `wall_s`, `samples_per_s`, `warmup_s`, and the mean `loss` and `accuracy` over all samples.
    """
    import keras
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(flags.threads)
    tf.config.threading.set_inter_op_parallelism_threads(flags.inter_op)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), rpc_layer="grpc"
    )
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    keras.utils.set_random_seed(flags.seed)
    dataset = load(flags.data)
    with strategy.scope():
        model = MODELS[flags.model].builder(dataset.input_shape, dataset.classes)
        optimizer = keras.optimizers.SGD(flags.learning_rate)
        optimizer.build(model.trainable_variables)
        totals = tf.Variable(tf.zeros(3), name="totals")
    batches = iter(coordinator.create_per_worker_dataset(_dataset_fn(dataset, folder, flags)))
    call = _call(strategy, model, optimizer, totals, flags)

    def run(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            coordinator.schedule(call, args=(batches,))
        coordinator.join()
        return time.perf_counter() - start

    weights = [variable.numpy() for variable in model.variables]
    warmup_s = run(max(4, flags.warmup_steps // flags.steps_per_call) * flags.workers)
    for variable, value in zip(model.variables, weights, strict=True):
        variable.assign(value)
    totals.assign(tf.zeros(3))
    steps = flags.epochs * (len(dataset.x_train) // flags.batch_size)
    wall_s = run(steps // flags.steps_per_call)
    loss, correct, samples = totals.numpy().tolist()
    return {
        "samples": int(samples),
        "wall_s": wall_s,
        "samples_per_s": samples / wall_s,
        "warmup_s": warmup_s,
        "loss": loss / samples,
        "accuracy": correct / samples,
    }


def _dataset_fn(dataset: Dataset, folder: Path, flags: argparse.Namespace) -> Callable[[], Any]:
    """What each worker runs to have its batches: all samples in memory, gathered in an order of its own.

    The samples travel as files: in the function's graph they would be constants, sent to every worker.
    """
    import tensorflow as tf

    count, shape = len(dataset.x_train), dataset.input_shape
    x_file, y_file = str(folder / "x"), str(folder / "y")
    (dataset.x_train * np.float32(scale_of(dataset))).tofile(x_file)
    dataset.y_train.astype(np.int32).tofile(y_file)

    def batches() -> Any:
        x = tf.reshape(tf.io.decode_raw(tf.io.read_file(x_file), tf.float32), [count, *shape])
        y = tf.io.decode_raw(tf.io.read_file(y_file), tf.int32)
        # All workers run this graph, seeds included: each starts at a place of its own in the same order.
        start = tf.cast(tf.timestamp() * 1e6, tf.int64) % count
        order = tf.data.Dataset.range(count).shuffle(count).repeat().skip(start)
        return (
            order.batch(flags.batch_size, drop_remainder=True)
            .map(lambda chosen: (tf.gather(x, chosen), tf.gather(y, chosen)))
            .prefetch(tf.data.AUTOTUNE)
        )

    return batches


def _call(strategy: Any, model: Any, optimizer: Any, totals: Any, flags: argparse.Namespace) -> Any:
    """The function that is scheduled: `--steps-per-call` steps, and their metrics added on the server."""
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


@contextmanager
def _servers(flags: argparse.Namespace) -> Iterator[dict[str, list[str]]]:
    """Runs one `ps` and the workers, each a process; they end when their standard input does."""
    ports = _free_ports(1 + flags.workers)
    addresses = [f"localhost:{port}" for port in ports]
    cluster = {"ps": addresses[:1], "worker": addresses[1:]}
    command = [sys.executable, "-m", "bench.tf_parameter_server", "--cluster", json.dumps(cluster)]
    command += ["--threads", str(flags.threads), "--inter-op", str(flags.inter_op)]
    processes: list[subprocess.Popen[str]] = []
    try:
        for job in ["ps:0", *(f"worker:{index}" for index in range(flags.workers))]:
            processes.append(
                subprocess.Popen(
                    [*command, "--serve", job],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,  # as ours are: Linux shares a busy machine among sessions
                )
            )
        for process in processes:
            if process.stdout is None or not process.stdout.readline():
                raise RuntimeError("a tf.distribute.Server must start. It ended: see what it printed above.")
        yield cluster
    finally:
        for process in processes:
            if process.stdin:
                process.stdin.close()
        for process in processes:
            try:
                process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on: TensorFlow wants every address before the first server starts."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.tf_parameter_server", description="TensorFlow's ParameterServerStrategy."
    )
    parser.add_argument("--data", help="a dataset's name, or an .npz file")
    parser.add_argument("--model", choices=list(MODELS), default="sigmoid100")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps-per-call", type=int, default=1, help="steps in one scheduled function")
    parser.add_argument("--threads", type=int, default=1, help="intra-op threads of each process")
    parser.add_argument("--inter-op", type=int, default=4, help="inter-op threads of each process; 1 hangs")
    parser.add_argument(
        "--warmup-steps", type=int, default=40, help="per worker, before the clock; at least 4 calls"
    )
    parser.add_argument("--serve", metavar="JOB:INDEX", help="be this server of the cluster")
    parser.add_argument("--cluster", help="addresses of the cluster, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
