"""A small model, the exchange of a worker that trains it, and servers that apply each push at once."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.exchange.timing import TimeSpent
from downpour.worker.fit.cluster.stage import UpdateCounts
from downpour.worker.fit.optimizer.distributed_optimizer import DistributedMixin
from downpour.worker.fit.optimizer.gradient_op import GradientOp
from downpour.worker.fit.optimizer.loss_scale import distributed_class
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers
from downpour.worker.plan.push_plan import PushPlan

RATE = 0.5


class Server:
    """A worker whose servers apply each push at once, by plain gradient descent."""

    nonfinite_limit, clip_norm, rank, outdated = 10, 0.0, 0, False

    def begin_epoch(self, number: int) -> None:
        pass

    def __init__(self, plan: PushPlan, size: int, trained: int) -> None:
        self.plan, self.flat, self.trained = plan, np.zeros(size, np.float32), trained
        self.pushed: list[PushInfo] = []
        self.spent = TimeSpent()
        self.in_flight: np.ndarray | None = None

    @property
    def versions(self) -> tuple[int, ...]:
        return (len(self.pushed),)

    @property
    def counts(self) -> UpdateCounts:
        steps = sum(info.steps for info in self.pushed)
        return UpdateCounts([steps], [steps])

    def pull(self, pin: int = 0) -> tuple[np.ndarray, UpdateCounts]:
        assert self.in_flight is None, "a reply is awaited"
        return self.flat.copy(), self.counts

    def push(self, vector: np.ndarray, info: PushInfo) -> None:
        assert self.in_flight is None, "a reply is awaited"
        self.pushed.append(info)
        if not info.finite:
            return
        moved = vector.copy()
        if self.plan.payload == "gradient":
            moved[: self.trained] *= -RATE
        self.flat = self.flat + moved

    def push_pull(self, vector: np.ndarray, info: PushInfo) -> np.ndarray:
        self.push(vector, info)
        return self.flat.copy()

    def send(self, vector: np.ndarray, info: PushInfo) -> None:
        self.push(vector, info)
        self.in_flight = self.flat.copy()

    def receive(self) -> np.ndarray:
        found, self.in_flight = self.in_flight, None
        assert found is not None
        return found


def network(optimizer: Any = None, constraint: Any = None) -> Any:
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(2, use_bias=False, kernel_constraint=constraint), layers.BatchNormalization()]
    )
    model.compile(optimizer or keras.optimizers.SGD(RATE), "mse")
    kind: Any = type(model.optimizer)
    object.__setattr__(model.optimizer, "__class__", distributed_class(DistributedMixin, kind))
    return model


def op_of(kind: type[GradientOp], plan: PushPlan) -> tuple[Any, Server]:
    model = network()
    server = Server(plan, 12, 8)
    op: Any = kind(model, ModelOptimizers([model.optimizer]), server)  # type: ignore[arg-type]
    op.write(server.flat.copy())
    op.begin_epoch(0)
    return op, server
