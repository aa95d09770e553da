"""A model and a dataset are one row each: registered here, they are trained like those of the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.deploy.config import TrainSettings
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.settings import parse
from downpour.worker.catalog import datasets, models
from tests.support.cluster import running
from tests.support.toys.toy_rows import DATASET, MODEL, SAMPLES


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.MODELS, "toy", MODEL)
    monkeypatch.setitem(datasets.DATASETS, "toy", DATASET)


def test_flags_accept_a_row_and_use_its_settings() -> None:
    settings = parse(TrainSettings, ["--model=toy", "--workers=1"], "downpour train")
    assert (settings.model, settings.dataset, settings.learning_rate, settings.epochs) == ("toy", "toy", 0.5, 3)
    assert parse(TrainSettings, ["--model=toy", "--epochs=1"], "downpour train").epochs == 1


def test_a_row_builds_a_model_for_a_row_of_data() -> None:
    data = datasets.load("toy")
    model = models.build("toy", data.input_shape, data.classes)
    assert model.output_shape == (None, 2) and model.compiled
    assert len(data.checksum) == 64 and not data.x_train.flags.writeable


@pytest.mark.slow
def test_a_worker_trains_a_row_of_each(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"model": "toy", "dataset": "toy", "learning_rate": 0.5, "epochs": 3, "batch_size": 8}
    with running(tmp_path, workers=1, validation_split=0.25, **flags) as cluster:
        worker = cluster.start("worker", "-m", "tests.support.toys.toy_rows", f"--server={cluster.address}")
        assert worker.wait() == 0, worker.errors
        assert cluster.servers[0].wait() == 0, cluster.servers[0].errors
        trace = cluster.trace()
    applied = trace[trace["outcome"] == pb.APPLIED]
    assert applied["samples"].sum() == 3 * SAMPLES * 0.75
    losses = applied["loss"]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
