"""A cluster that does not train: its processes and its gRPC are real, and its workers only request leases.

    python -m tests.support.processes.fake_cluster launch RUN_DIR [--workers N] [--leases N] [--worker-exit CODE] ...

`launch` runs the real launcher over the fake `server`, `shard` and `worker`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import open_channel
from downpour.protos.logs import open_standard_streams
from downpour.protos.parameter_server_pb2_grpc import (
    CoordinatorServicer,
    CoordinatorStub,
    add_CoordinatorServicer_to_server,
)

if TYPE_CHECKING:
    from downpour.deploy.launch.plan import ProcessSpec

TIMEOUT_S = 30.0


class FakeCoordinator(CoordinatorServicer):
    """A coordinator that grants a number of leases; with 0 it grants them until it is stopped."""

    def __init__(self, leases: int, ignores_stop: bool = False) -> None:
        self.leases, self.ignores_stop = leases, ignores_stop
        self.changed = threading.Condition()
        self.members: dict[int, int] = {}
        self.used, self.phase, self.left, self.now = 0, "waiting", 0, False
        self.notes: list[str] = []
        self.wanted = 2

    def AddWorker(self, request: pb.AddWorkerRequest, context: grpc.ServicerContext) -> pb.AddWorkerReply:
        with self.changed:
            self.wanted += 1
            return pb.AddWorkerReply(workers=self.wanted)

    def progress(self) -> pb.Progress:
        total = (self.leases or 1000) * 32
        progress = pb.Progress(
            model="sigmoid100", dataset="mnist", mode="async", phase=self.phase, run="fake",
            epoch=min(9, self.used * 320 // total), epochs=10, samples=self.used * 32, total_samples=total,
            samples_per_s=12345.6, loss=0.3123, staleness_mean=0.98, version=self.used, elapsed_s=self.used / 100,
            eta_s=83.0, workers=[self.worker(number) for number in sorted(self.members)], notes=self.notes,
            workers_wanted=self.wanted,
        )  # fmt: skip
        if self.used > 10:
            progress.val_accuracy = 0.9412
        return progress

    def worker(self, number: int) -> pb.WorkerProgress:
        return pb.WorkerProgress(
            worker=number, incarnation=self.members[number], state="training", updates=self.used // 2,
            pid=4000 + number, samples_per_s=6172.8, loss=0.3, staleness_mean=0.97, host="a.example.org",
        )  # fmt: skip

    def Register(self, request: pb.RegisterRequest, context: grpc.ServicerContext) -> pb.RegisterReply:
        with self.changed:
            life = self.members.get(request.worker, 0) + 1
            self.members[request.worker] = life
            if self.phase == "waiting":
                self.phase = "training"
            self.changed.notify_all()
        return pb.RegisterReply(worker=request.worker, incarnation=life)

    def Lease(self, request: pb.LeaseRequest, context: grpc.ServicerContext) -> pb.Task:
        with self.changed:
            self.changed.wait_for(lambda: self.phase != "training", timeout=0.01)
            if self.phase == "training":
                self.used += 1
                if self.used == self.leases:
                    self.phase = "ended"
                    self.changed.notify_all()
            return pb.Task(kind=pb.TRAIN if self.phase == "training" else pb.END)

    def Leave(self, request: pb.LeaveRequest, context: grpc.ServicerContext) -> pb.LeaveReply:
        with self.changed:
            self.left += 1
            self.changed.notify_all()
        return pb.LeaveReply()

    def Status(self, request: pb.StatusRequest, context: grpc.ServicerContext) -> pb.Progress:
        with self.changed:
            return self.progress()

    def Watch(self, request: pb.WatchRequest, context: grpc.ServicerContext) -> Iterator[pb.Progress]:
        while context.is_active():
            with self.changed:
                progress = self.progress()
                self.notes = []
                ended = self.phase == "ended"
                self.changed.wait_for(lambda: self.phase == "ended", timeout=request.every_s)
            yield progress
            if ended:
                return

    def Stop(self, request: pb.StopRequest, context: grpc.ServicerContext) -> pb.StopReply:
        with self.changed:
            if not self.ignores_stop:
                self.phase, self.now = "ended", request.now
            self.notes.append(f"stop: now={request.now}")
            self.changed.notify_all()
        return pb.StopReply()

    def over(self) -> bool:
        return self.phase == "ended" and (self.now or self.left >= len(self.members))


def server(options: argparse.Namespace) -> int:
    """Announce the address, serve until all workers have left, and write the summary."""
    coordinator = FakeCoordinator(options.leases, options.ignores_stop)
    grpc_server = grpc.server(ThreadPoolExecutor(16))
    add_CoordinatorServicer_to_server(coordinator, grpc_server)
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    if options.ignores_stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.server_exit:
        print("the server has a defect", flush=True)
        return options.server_exit
    print("a line before", flush=True)
    if options.server_silent:
        threading.Event().wait()
    announcement = {"event": "listening", "address": f"127.0.0.1:{port}", "shard": 0, "pid": os.getpid()}
    print(json.dumps(announcement), flush=True)
    with coordinator.changed:
        coordinator.changed.wait_for(lambda: coordinator.phase == "ended")
        coordinator.changed.wait_for(coordinator.over, 1.0)  # one that was killed does not leave
    summary = {
        "test_accuracy": 0.9612,
        "val_accuracy": 0.9634,
        "train_loss": 0.12,
        "updates": coordinator.used,
    }
    Path(options.run_dir, "summary.json").write_text(json.dumps(summary))
    grpc_server.stop(0.5).wait()
    return 0


def shard(options: argparse.Namespace) -> int:
    """Announce an address; end with status 0 at once when started for the first time, else wait for a signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    announcement = {"event": "listening", "address": "127.0.0.1:1", "shard": 1, "pid": os.getpid()}
    print(json.dumps(announcement), flush=True)
    left = Path(options.run_dir, "left")
    if not left.exists():
        left.touch()
        return 0
    signal.sigwait({signal.SIGTERM})
    return 0


def worker(options: argparse.Namespace) -> int:
    """Request leases until the job ends; with some options, fail before or never begin."""
    if options.worker_waits:  # as one that loads TensorFlow
        print("waits", flush=True)
        threading.Event().wait()
    with open_channel(options.server) as channel:
        coordinator = CoordinatorStub(channel)
        me = coordinator.Register(pb.RegisterRequest(worker=options.worker), timeout=TIMEOUT_S)
        if options.worker_exit:
            print("downpour worker: gradients are not finite: lower --learning-rate", flush=True)
            print("  * its second line\nsomething else was printed after it", flush=True)
            print("E0000 00:00:1795241602.891332    7540 cuda_platform.cc:52] no driver", flush=True)
            return int(options.worker_exit)
        if options.worker_dies and me.worker == 1 and me.incarnation <= options.worker_dies:
            os.kill(os.getpid(), signal.SIGKILL)
        while coordinator.Lease(pb.LeaseRequest(), timeout=TIMEOUT_S).kind != pb.END:
            pass
        coordinator.Leave(pb.LeaveRequest(), timeout=TIMEOUT_S)
    return 0


def launch(options: argparse.Namespace) -> int:
    """Run the real launcher over the server and the workers of this file, which do not import it."""
    from downpour.deploy.launch import launcher
    from downpour.deploy.view.terminal import open_screen

    if options.worker_waits:  # to end such a worker is not left to a time limit
        launcher.LEAVE_S = launcher.DRAIN_TIMEOUT_S = 10 * TIMEOUT_S
    open_standard_streams()
    run_dir = Path(options.run_dir)
    (run_dir / "logs").mkdir(parents=True)
    own = {name: value for name, value in vars(options).items() if name not in ("role", "run_dir", "verbose")}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in own.items() if value]
    specs = [_spec("ps", 0, (f"{run_dir}", *flags), (), 0)]
    if options.shard_leaves:
        specs.append(_spec("ps", 1, (f"{run_dir}",), ("ps-0",), 2))
    for number in range(options.workers):
        args = (f"{run_dir}", "--server={ps-0}", f"--worker={number}", *flags)
        specs.append(_spec("worker", number, args, ("ps-0",), 2))
    return launcher.Launcher(specs, run_dir, open_screen(options.verbose), launcher.DRAIN_TIMEOUT_S).run()


def _spec(role: Any, number: int, args: tuple[str, ...], needs: tuple[str, ...], restarts: int) -> ProcessSpec:
    from downpour.deploy.launch.plan import ProcessSpec

    what = {"ps": "shard" if number else "server", "worker": "worker"}[role]
    return ProcessSpec(
        f"{role}-{number}", role, number, "tests.support.processes.fake_cluster", (what, *args), {}, needs, restarts
    )


def main() -> int:
    """Run the role that the first argument names."""
    roles = {"launch": launch, "server": server, "shard": shard, "worker": worker}
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=roles)
    parser.add_argument("run_dir")
    numbers = (
        "workers leases worker worker_exit worker_dies worker_waits server_exit server_silent ignores_stop shard_leaves"
    )
    for name in numbers.split():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=2 if name == "workers" else 0)
    parser.add_argument("--server")
    parser.add_argument("--bind")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    return roles[options.role](options)


if __name__ == "__main__":
    sys.exit(main())
