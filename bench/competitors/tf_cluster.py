"""Server processes of TensorFlow: one that holds the variables (`ps`), and the workers.

They end when their standard input does, so none outlives the process that started them. They listen on every
interface of the machine: `tf.distribute.Server` has no way to say otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from downpour.bench.module_process import module_command, module_environment

END_TIMEOUT_S = 10.0

Cluster = dict[str, list[str]]  # job -> addresses


class Placement(NamedTuple):
    """Where the processes run.

    Attributes:
        ps_host: The host under which the others reach the parameter server.
        worker_host: The host under which the others reach the workers.
        ps_before: The command that executes another where the parameter server runs.
    """

    ps_host: str = "localhost"
    worker_host: str = "localhost"
    ps_before: tuple[str, ...] = ()


HERE = Placement()


@contextmanager
def servers(workers: int, threads: int, inter_op: int, place: Placement = HERE) -> Iterator[Cluster]:
    """Run one `ps` and the workers on free ports within the block, and yield their addresses.

    Args:
        workers: The number of workers.
        threads: The number of intra-op threads of each process.
        inter_op: The number of inter-op threads of each process; with one, the processes hang.
        place: Where the processes run.

    Raises:
        RuntimeError: A process did not start.
    """
    ports = free_ports(1 + workers)
    addresses = [f"{place.ps_host}:{ports[0]}", *(f"{place.worker_host}:{port}" for port in ports[1:])]
    cluster = {"ps": addresses[:1], "worker": addresses[1:]}
    command = module_command("downpour.bench.competitors.tf_cluster", "--cluster", json.dumps(cluster))
    command += ["--threads", str(threads), "--inter-op", str(inter_op)]
    processes: list[subprocess.Popen[str]] = []
    try:
        for job, index in [("ps", 0), *(("worker", index) for index in range(workers))]:
            processes.append(
                subprocess.Popen(
                    [*(place.ps_before if job == "ps" else ()), *command, "--job", job, "--index", str(index)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=module_environment(),
                    start_new_session=True,  # as downpour's: Linux divides a busy machine between sessions
                )
            )
        for process in processes:
            if process.stdout is None or not process.stdout.readline():
                raise RuntimeError("a tf.distribute.Server must start; it ended. See its output above.")
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


def free_ports(count: int) -> list[int]:
    """Return free ports: TensorFlow requires every address before the first server starts."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


def main(argv: list[str]) -> None:
    """Run one server of the cluster until standard input ends."""
    import tensorflow as tf

    flags = _parser().parse_args(argv)
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=flags.threads,
        inter_op_parallelism_threads=flags.inter_op,
        device_count={"GPU": 0},
    )
    cluster = tf.train.ClusterSpec(json.loads(flags.cluster))
    server = tf.distribute.Server(cluster, flags.job, flags.index, protocol="grpc", config=config)
    print(server.target, flush=True)
    sys.stdin.read()
    os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m downpour.bench.competitors.tf_cluster", description="One TensorFlow server."
    )
    parser.add_argument("--cluster", required=True, help="addresses by job, as JSON")
    parser.add_argument("--job", choices=["ps", "worker"], required=True)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--inter-op", type=int, required=True)
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
