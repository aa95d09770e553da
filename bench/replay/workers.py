"""Computes the pushes of a recorded run again in this process, with the code that its workers ran."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from downpour.bench.replay.differences import Computed
from downpour.bench.replay.nondeterminism import suspects
from downpour.bench.replay.record import CannotReplay, Life, Recorded
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.layout import Layout
from downpour.worker.catalog.datasets import DatasetError, load, split
from downpour.worker.catalog.models import ModelError, build, load_weights
from downpour.worker.catalog.scaling import scaled
from downpour.worker.compute.environment import facts_here, seeds_of
from downpour.worker.compute.flat_model import data_checksum, frozen_weights, layout_of, read_weights, write_weights
from downpour.worker.compute.gradient import GradientFunction
from downpour.worker.compute.local_steps import LocalSteps
from downpour.worker.config import factor_of
from downpour.worker.exchange.client import Pulled
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.plan.push_plan import PushPlan
from downpour.worker.train.lease_steps import LeaseSteps

REPEATED = 3  # pushes of each compiled form that are computed twice, to detect nondeterminism


class OnePush:
    """A stand-in for `Client` in a replay: it returns the given weights and stores the push.

    Attributes:
        computed: The latest push; None before the first.
    """

    def __init__(self) -> None:
        """Build a stand-in without weights."""
        self._flat = np.empty(0, np.float32)
        self.computed: Computed | None = None

    def hold(self, flat: np.ndarray) -> None:
        """Let pulls return the weights `float32[n + m]`."""
        self._flat = flat

    def pull(self, pin: int = 0) -> Pulled:
        """Return the weights; `pin` is ignored."""
        return Pulled(self._flat, (0,), ())

    def push(self, gradient: np.ndarray | ChunkedVector, info: PushInfo, pull: bool = True) -> None:
        """Store a push and a copy of its gradient as `computed`."""
        self.computed = Computed(gradient[:], info.norm, info.loss, info.samples, info.steps, info.finite)

    def pulled(self) -> Pulled:
        """Return the same weights: the replay of the shards applies the push."""
        return self.pull()


class Workers:
    """Computes the pushes of a recorded run again.

    Attributes:
        model: The model of the run.
        nondeterminism: The reasons why bits may differ: nondeterministic kernels, or an environment that has changed.
    """

    def __init__(self, recorded: Recorded, model: str | None = None, dataset: str | None = None) -> None:
        """Build the model and load the data, as a worker does.

        Args:
            recorded: The run.
            model: `module:function` that returns the model (default: that of the run).
            dataset: The path of the data (default: that of the run).

        Raises:
            CannotReplay: The model or the data are not those of the run, or its workers had different environments.
        """
        settings, self._facts = recorded.settings, recorded.facts
        threads = int(_only(self._facts, "threads", "1"))
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        keras.utils.set_random_seed(settings.seed)
        try:
            self._dataset = load(dataset or settings.dataset)
            self.model = build(model or settings.model, self._dataset.input_shape, self._dataset.classes)
        except (DatasetError, ModelError) as error:
            raise CannotReplay(f"the model and the data of the run must be available: {error}") from error
        own = ":" in (model or settings.model)
        self._dataset = scaled(self._dataset, self.model, factor_of(_only(self._facts, "scale", "auto")), own)
        self._load_frozen_weights()
        _check(recorded, layout_of(self.model), self._dataset.name, data_checksum(self._dataset, self.model))
        self._job = pb.JobDescription(
            mode=settings.mode, push_every=settings.push_every, fetch_every=settings.push_every,
            batch_size=settings.batch_size, seed=settings.seed, learning_rate=settings.effective_learning_rate,
        )  # fmt: skip
        self._plan = PushPlan.of(self._job)
        self._samples = len(split(self._dataset, settings.validation_split).y_train)
        seeds = seeds_of(_only(self._facts, "seeds", ""))
        self._gradient = GradientFunction(
            self.model, self._dataset, settings.batch_size, settings.clip_norm, threads, seeds
        )
        most = self._plan.push_every
        self._local = LocalSteps(self._gradient, settings.effective_learning_rate, most) if most > 1 else None
        self._link, self._steps, self._tried = OnePush(), dict[int, LeaseSteps](), dict[bool, int]()
        self.nondeterminism = [*differing(self._facts), *_threads(threads)]

    def __call__(self, record: np.void, flat: np.ndarray) -> Computed:
        """Compute the gradient of a recorded push again.

        Args:
            record: The record of the push in the trace of shard 0.
            flat: The weights `float32[n + m]` that it was computed from.
        """
        xla = self._use(record)
        computed = self._compute(record, flat)
        if self._tried.get(xla, 0) < REPEATED:
            self._tried[xla] = self._tried.get(xla, 0) + 1
            self._try_again(record, flat, computed)
        return computed

    def held(self, flat: np.ndarray) -> np.ndarray:
        """Return weights `float32[n + m]` after conversion to the types of the model's variables and back."""
        write_weights(self.model, flat)
        return read_weights(self.model)

    def saved(self, path: Path) -> np.ndarray:
        """Return the weights `float32[n + m]` of a `.keras` file of this model.

        Raises:
            CannotReplay: The file does not contain weights of this model.
        """
        # Keras and HDF5 raise exceptions of many types for a damaged file.
        try:
            self.model.load_weights(path)
        except Exception as error:
            raise CannotReplay(f"{path} must contain the final weights: {type(error).__name__}: {error}") from error
        return read_weights(self.model)

    def save(self, flat: np.ndarray, path: Path) -> None:
        """Write the model with the weights `float32[n + m]` as a `.keras` file."""
        write_weights(self.model, flat)
        if self.model.optimizer is not None:  # Keras warns when it loads an optimizer that was saved unbuilt
            self.model.optimizer.build(self.model.trainable_variables)
        self.model.save(path)

    def _load_frozen_weights(self) -> None:
        """Load the file that the run's workers began with: all but its frozen weights are in the record."""
        if not frozen_weights(self.model):
            return
        if path := _only(self._facts, "weights", ""):
            try:
                load_weights(self.model, path)
            except ModelError as error:
                raise CannotReplay(f"the run's frozen weights must be available: {error}") from error

    # ------------------------------------------------------------------ one push

    def _use(self, record: np.void) -> bool:
        """Select the compiled form that the worker of a record used; return whether it is XLA's."""
        life: Life = (int(record["worker"]), int(record["incarnation"]))
        form = self._facts.get(life, {}).get("compiled")
        if form not in ("plain", "xla"):
            raise CannotReplay(
                f"config.json must contain the compiled form of worker {life[0]}, incarnation {life[1]}."
            )
        (self._local or self._gradient).select_form(form == "xla")
        return form == "xla"

    def _compute(self, record: np.void, flat: np.ndarray) -> Computed:
        worker = int(record["worker"])
        if worker not in self._steps:
            n = self._gradient.model.layout.trained
            self._steps[worker] = LeaseSteps(
                self._link, self._gradient, self._local, self._plan, self._job, worker, n, self._samples
            )
        lease_steps = self._steps[worker]
        self._link.hold(flat)
        lease_steps.go_back(int(record["seq"]))
        task = pb.Task(
            kind=pb.TRAIN, lease=int(record["lease"]), epoch=int(record["epoch"]), start=int(record["start"]),
            stop=int(record["stop"]),
        )  # fmt: skip
        next(lease_steps.train(task))
        assert self._link.computed is not None
        return self._link.computed

    def _try_again(self, record: np.void, flat: np.ndarray, first: Computed) -> None:
        """Compute a push a second time, which detects most nondeterministic kernels."""
        before = [np.array(variable.value) for variable in self.model.non_trainable_variables]
        again = self._compute(record, flat)
        after = [np.array(variable.value) for variable in self.model.non_trainable_variables]
        moved = [
            variable.path
            for variable, a, b in zip(self.model.non_trainable_variables, before, after, strict=True)
            if not np.array_equal(a, b)
        ]
        if moved:
            raise CannotReplay(
                f"a model to be replayed must not keep integer state; a step changes {', '.join(moved)}, which "
                "stays in the worker and is not recorded."
            )
        if again.vector.tobytes() != first.vector.tobytes():
            kernels = ", ".join(suspects((self._local or self._gradient).function)) or "unknown"
            reason = f"the same step gives different bits when it is repeated; nondeterministic kernels: {kernels}"
            if reason not in self.nondeterminism:
                self.nondeterminism.append(reason)


def differing(facts: dict[Life, dict[str, str]]) -> list[str]:
    """Return the changes of the environment since the run was recorded that may change bits."""
    here = facts_here()
    found: list[str] = []
    for each in facts.values():
        for name, value in here.items():
            was = each.get(name, "not recorded")
            text = f"{name} was {was!r} and is {value!r}"
            if was != value and text not in found:
                found.append(text)
    return found


def _threads(threads: int) -> list[str]:
    if threads == 1:
        return []
    return [f"{threads} threads within an operation (--threads) may add numbers in any order"]


def _only(facts: dict[Life, dict[str, str]], name: str, default: str) -> str:
    """Return a fact that must be the same for all workers."""
    values = {each.get(name, default) for each in facts.values()}
    if len(values) > 1:
        raise CannotReplay(f"all workers of a run to be replayed must have the same {name}; received {sorted(values)}.")
    return values.pop() if values else default


def _check(recorded: Recorded, layout: Layout, name: str, checksum: str) -> None:
    difference = recorded.layout.difference(layout)
    if difference:
        raise CannotReplay(f"the model must be that of the run: {difference}.")
    if checksum != recorded.checksum:
        raise CannotReplay(
            f"the data must be those of the run, with checksum {recorded.checksum[:12]}; received {name!r} "
            f"with {checksum[:12]}. Pass the file with --dataset."
        )
