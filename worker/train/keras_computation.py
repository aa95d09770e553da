"""The model of a job in Keras, with its data: the `Computation` of a real worker."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import keras
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.logs import log
from downpour.worker.catalog.datasets import Split, split
from downpour.worker.catalog.datasets import load as load_dataset
from downpour.worker.catalog.models import build, check_targets, load_weights
from downpour.worker.catalog.scaling import scaled, scaling_text
from downpour.worker.compute.environment import compiled_facts, facts_here, model_fingerprint
from downpour.worker.compute.flat_model import data_checksum
from downpour.worker.compute.gradient import GradientFunction, layout_of, read_weights
from downpour.worker.compute.local_steps import LocalSteps
from downpour.worker.config import WorkerSettings, factor_of, named
from downpour.worker.plan.accumulator import Compute, ManySteps
from downpour.worker.plan.push_plan import PushPlan
from downpour.worker.train.compiled_optimizer import compiled_optimizer
from downpour.worker.train.computation import Examiner
from downpour.worker.train.evaluation import EvaluationRunner


class KerasComputation:
    """A Keras model with its data; see `Computation`."""

    def __init__(self, settings: WorkerSettings, job: pb.JobDescription) -> None:
        """Build the model and load the data.

        Args:
            settings: The settings of this process.
            job: The description of the job.

        Raises:
            ModelError: The model cannot be built, or does not fit the data.
            DatasetError: The data cannot be loaded.
            ValueError: The job names a function, a file or a mode that this worker does not accept.
        """
        self._settings = settings
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        keras.utils.set_random_seed(job.seed)
        self._dataset = load_dataset(named(settings.dataset, job.dataset, "dataset"))
        self._split: Split = split(self._dataset, job.validation_split)
        model_name = named(settings.model, job.model, "model")
        self._model = build(model_name, self._dataset.input_shape, self._dataset.classes)
        if settings.weights:
            load_weights(self._model, settings.weights)
        check_targets(model_name, self._model, self._dataset)
        self._dataset = scaled(self._dataset, self._model, factor_of(settings.scale), own=":" in model_name)
        log(scaling_text(self._dataset))
        self._optimizer = compiled_optimizer(model_name, self._model, job.clip_norm)
        self.layout, self.samples = layout_of(self._model), len(self._split.y_train)
        plan = PushPlan.of(job)
        self._gradient = GradientFunction(self._model, self._dataset, job.batch_size, job.clip_norm, settings.threads)
        most = min(plan.push_every, plan.fetch_every)
        self._local = LocalSteps(self._gradient, job.learning_rate, most) if most > 1 else None
        self.one: Compute = self._gradient
        self.many: ManySteps | None = self._local
        self.examiner: Examiner = EvaluationRunner(self._model, self._split, self._dataset.scale)
        self.initial = read_weights(self._model)  # needed again if the job starts over

    def registration(self) -> pb.RegisterRequest:
        """Return the request to register, with layout, data and environment."""
        settings = self._settings
        request = pb.RegisterRequest(
            optimizers=[self._optimizer] if self._optimizer is not None else [],
            layout=self.layout.to_proto(),
            data=pb.DatasetInfo(
                name=self._dataset.name,
                checksum=data_checksum(self._dataset, self._model),
                train_samples=len(self._split.y_train),
                validation_samples=len(self._split.y_validation),
                test_samples=len(self._split.y_test),
                numeric_targets=self._split.y_train.dtype.kind == "f",
            ),
            environment={**facts_here(), "threads": str(settings.threads), "xla": settings.xla},
        )
        request.environment["scale"] = repr(self._dataset.scale)
        request.environment["model"] = model_fingerprint(self._model)
        request.environment["scaling"] = scaling_text(self._dataset)
        if settings.weights:
            request.environment["weights"] = settings.weights
            request.environment["weights_sha256"] = sha256(Path(settings.weights).read_bytes()).hexdigest()
        return request

    def warm_up(self) -> dict[str, str]:
        """Compile the gradient; return the facts that its bits depend on."""
        steps = self._local or self._gradient
        times = steps.warm_up(self.initial, self._settings.xla, log)
        log("gradient: " + ", ".join(f"{name} {1000 * s:.2f} ms" for name, s in times.items()))
        return compiled_facts(steps.xla, self._gradient.model)
