"""Parameter servers with `torch.distributed.rpc`, and the result of a training as one JSON line.

`python -m downpour.bench.peers.torch_rpc --data FILE.npz --model sigmoid100 --form FORM`: a competitor of
`training.baselines`. Process 0 is the server, the others are trainers, and the weights are remote references. Forms:

- `model-on-server`, as in PyTorch's tutorial "Implementing a Parameter Server Using Distributed RPC Framework": a
  trainer sends its batch, the server computes the forward and the backward pass in a distributed autograd context, and
  a distributed optimizer changes the parameters. The forward pass copies them, which the tutorial does not: without
  it, PyTorch 2.13 ends the training of two trainers with an error.
- `gradients`, as in PyTorch's tutorial "Implementing Batch RPC Processing Using Asynchronous Executions", with an
  update for each gradient: a trainer computes the gradient, and one `rpc_sync` sends it and returns the new weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from downpour.bench.peers import torch_task

SERVER = "ps"
FORMS = ("model-on-server", "gradients")
RPC_TIMEOUT_S = 120.0
Step = Callable[[Any, Any], torch_task.StepMetrics]


class RemoteParameters:
    """The model, in the memory of process 0."""

    def __init__(self, flags: argparse.Namespace) -> None:
        """Build the model and the optimizer of the form `gradients`."""
        import torch

        self.model = torch_task.network(flags, torch_task.dataset_of(flags))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=flags.learning_rate)
        self.initial = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.lock, self.form = threading.Lock(), threading.local()

    def forward(self, x: Any) -> Any:
        """Return the logits of a batch.

        They are computed with copies of the weights: PyTorch refuses a backward pass if an update of another trainer
        has changed the weights since the forward pass.
        """
        import torch

        held = {name: value.clone() for name, value in self.model.named_parameters()}
        held |= {name: value.clone() for name, value in self.model.named_buffers()}
        if not hasattr(self.form, "model"):  # calls in several threads would exchange the weights of one module
            self.form.model = copy.deepcopy(self.model)
        return torch.func.functional_call(self.form.model, held, (x,))

    def parameter_references(self) -> list[Any]:
        """Return a remote reference to each parameter."""
        from torch.distributed.rpc import RRef

        return [RRef(parameter) for parameter in self.model.parameters()]

    def weights(self) -> list[Any]:
        """Return a copy of the weights."""
        with self.lock:
            return [parameter.detach().clone() for parameter in self.model.parameters()]

    def update(self, gradients: list[Any]) -> list[Any]:
        """Apply one gradient, and return a copy of the new weights."""
        with self.lock:
            for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            self.optimizer.step()
            return [parameter.detach().clone() for parameter in self.model.parameters()]

    def reset(self) -> None:
        """Restore the initial weights."""
        import torch

        with self.lock, torch.no_grad():
            for parameter, initial in zip(self.model.parameters(), self.initial, strict=True):
                parameter.copy_(initial)


def call(method: Callable[..., Any], reference: Any, *arguments: Any) -> Any:
    """Call a method of the object that a remote reference stands for, in the process that owns it."""
    from torch.distributed import rpc

    return rpc.rpc_sync(reference.owner(), _call_here, args=(method, reference, *arguments), timeout=RPC_TIMEOUT_S)


def _call_here(method: Callable[..., Any], reference: Any, *arguments: Any) -> Any:
    return method(reference.local_value(), *arguments)


def step_on_server(flags: argparse.Namespace, reference: Any) -> Step:
    """Return the step of the form `model-on-server`."""
    import torch
    from torch.distributed import autograd
    from torch.distributed.optim import DistributedOptimizer

    parameters = call(RemoteParameters.parameter_references, reference)
    optimizer = DistributedOptimizer(torch.optim.SGD, parameters, lr=flags.learning_rate)

    def step(x: Any, y: Any) -> torch_task.StepMetrics:
        with autograd.context() as context:
            logits = call(RemoteParameters.forward, reference, x)
            loss = torch.nn.functional.cross_entropy(logits, y)
            autograd.backward(context, [loss])
            optimizer.step(context)
        return torch_task.metrics_of(logits, y, loss)

    return step


def step_with_gradients(flags: argparse.Namespace, reference: Any) -> Step:
    """Return the step of the form `gradients`."""
    import torch

    model = torch_task.network(flags, torch_task.dataset_of(flags))
    held = call(RemoteParameters.weights, reference)

    def step(x: Any, y: Any) -> torch_task.StepMetrics:
        nonlocal held
        with torch.no_grad():
            for parameter, given in zip(model.parameters(), held, strict=True):
                parameter.copy_(given)
        model.zero_grad()
        logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits, y)
        loss.backward()
        held = call(RemoteParameters.update, reference, [parameter.grad for parameter in model.parameters()])
        return torch_task.metrics_of(logits, y, loss)

    return step


def process(rank: int, flags: argparse.Namespace, meeting: str, start: Any, results: Any) -> None:
    """Run one process: the server, or a trainer that puts its first and last instant and its metrics into `results`."""
    import torch
    from torch.distributed import rpc

    torch.set_num_threads(flags.threads)
    options = rpc.TensorPipeRpcBackendOptions(init_method=f"file://{meeting}", rpc_timeout=RPC_TIMEOUT_S)
    name = f"trainer{rank}" if rank else SERVER
    rpc.init_rpc(name, rank=rank, world_size=flags.workers + 1, rpc_backend_options=options)
    if rank:
        train(flags, rank - 1, rpc.remote(SERVER, _server, args=(flags,)), start, results)
    rpc.shutdown()


_held: list[RemoteParameters] = []
_holding = threading.Lock()


def _server(flags: argparse.Namespace) -> RemoteParameters:
    """Return the one server of this process, which the first trainer creates."""
    with _holding:
        if not _held:
            _held.append(RemoteParameters(flags))
    return _held[0]


def train(flags: argparse.Namespace, number: int, reference: Any, start: Any, results: Any) -> None:
    """Warm up, wait for the other trainers, and make this trainer's share of the steps."""
    dataset = torch_task.dataset_of(flags)
    batches = torch_task.batches(flags, dataset, number)
    make = step_on_server if flags.form == FORMS[0] else step_with_gradients
    step = make(flags, reference)
    for _ in range(torch_task.WARMUP_STEPS):
        step(*next(batches))
    start.wait()
    if number == 0:
        call(RemoteParameters.reset, reference)
    start.wait()
    step = make(flags, reference)  # from the initial weights
    steps = torch_task.steps_of(flags, dataset)
    own = steps // flags.workers + (number < steps % flags.workers)
    began = time.monotonic()
    metrics = [step(*next(batches)) for _ in range(own)]
    results.put((began, time.monotonic(), metrics))


def collected(ranks: Sequence[Any], results: Any, count: int) -> list[Any]:
    """Return the results of all trainers.

    Raises:
        RuntimeError: A process failed.
    """
    found: list[Any] = []
    while len(found) < count:
        if not results.empty():
            found.append(results.get())
        elif failed := [each.exitcode for each in ranks if each.exitcode]:
            raise RuntimeError(f"every process must exit with status 0; received {failed}")
        else:
            time.sleep(0.05)
    return found


def main(argv: list[str]) -> int:
    """Start the processes, print the result, and return 0."""
    from torch import multiprocessing

    parser = torch_task.parser("python -m downpour.bench.peers.torch_rpc", "PyTorch's RPC parameter server.")
    parser.add_argument("--form", choices=FORMS, default=FORMS[0])
    flags = parser.parse_args(argv)
    os.environ.setdefault("TP_SOCKET_IFNAME", "lo")  # the processes are on one machine
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(flags.workers), spawn.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="torch-rpc-") as folder:
        ranks = [
            spawn.Process(target=process, args=(rank, flags, f"{folder}/meeting", start, results), daemon=True)
            for rank in range(flags.workers + 1)
        ]
        for each in ranks:
            each.start()
        done = collected(ranks, results, flags.workers)
        for each in ranks:
            each.join()
    wall_s = max(end for _, end, _ in done) - min(began for began, _, _ in done)
    print(json.dumps(torch_task.result(flags, [metrics for *_, metrics in done], wall_s)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
