"""The course's models: each learns what it can, and does not learn what it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.rules.hyperparameters import Hyperparameters, resolve
from downpour.worker.catalog import datasets, models
from downpour.worker.catalog import synthetic as course_data
from downpour.worker.catalog.course_models import ACTIVATIONS, EPSILON
from downpour.worker.compute.evaluate import Evaluator
from downpour.worker.compute.gradient import GradientFunction, read_weights
from tests.support.scripts import environment

pytestmark = pytest.mark.slow


def trained(model_name: str, dataset_name: str, steps: int, batch: int = 4, optimizer: str = "sgd", **hyper: float):
    """Return the test result of a model after a number of steps of the server's optimizer in this process."""
    dataset = datasets.load(dataset_name)
    model = models.build(model_name, dataset.input_shape, dataset.classes)
    gradient = GradientFunction(model, dataset, batch)
    rule = Optimizer(optimizer, Hyperparameters(**hyper), gradient.model.layout.trained)
    flat, new = read_weights(model), np.empty(gradient.model.layout.size, np.float32)
    for step in range(steps):
        start = step * batch % (len(dataset.y_train) - batch + 1)
        found = gradient(flat, np.arange(start, start + batch, dtype=np.int32))
        rule.apply(flat, found.flat.copy(), new)
        flat, new = new, flat
    return Evaluator(model, dataset.scale)(flat, dataset.x_test, dataset.y_test)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("table", ["and", "or"])
def test_one_unit_learns_and_and_or(activation: str, table: str) -> None:
    import keras

    keras.utils.set_random_seed(2)
    name = "perceptron" if activation == "step" else f"perceptron_{activation}"
    rate = 0.5 if activation == "sigmoid" else 0.1
    assert trained(name, table, 1000, learning_rate=rate).accuracy == 1.0


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_single_unit_learns_xor(activation: str) -> None:
    name = "perceptron" if activation == "step" else f"perceptron_{activation}"
    assert trained(name, "xor", 400, learning_rate=0.1).accuracy <= 0.75


def test_the_gradient_of_a_step_is_the_perceptron_rule() -> None:
    """∂/∂w of ½(ŷ − y)² with the step passed through is (ŷ − y) x; squared error has twice that."""
    dataset = datasets.load("and")
    model = models.build("perceptron", dataset.input_shape, dataset.classes)
    gradient = GradientFunction(model, dataset, 1)
    flat = np.array([0.4, -0.7, 0.1], np.float32)
    for index in range(8):
        x, y = dataset.x_train[index], dataset.y_train[index]
        output = float(x @ flat[:2] + flat[2] > 0)
        found = gradient(flat, np.array([index], np.int32))
        np.testing.assert_allclose(found.flat, 2 * (output - y) * np.array([*x, 1.0]), atol=1e-6)


def test_least_squares_has_the_closed_form_of_the_plane() -> None:
    coefficients, error = course_data.closed_form(course_data.plane())
    np.testing.assert_allclose(coefficients, [0.3, 0.5, -0.25, 0.8, 0.1, -0.6], atol=0.02)
    assert error == pytest.approx(course_data.NOISE**2, rel=0.15)


@pytest.mark.parametrize("name", [name for name, row in models.MODELS.items() if row.settings])
def test_every_recommended_setting_is_one(name: str) -> None:
    from downpour.deploy.config import TrainSettings
    from downpour.protos.settings import parse

    settings = parse(TrainSettings, [f"--model={name}"], "downpour train")
    resolve(settings.optimizer, settings.hyper)
    assert settings.dataset in datasets.DATASETS
    for field, value in models.MODELS[name].settings.items():
        assert getattr(settings, field) == value


def test_flags_win_over_what_is_recommended() -> None:
    from downpour.deploy.config import TrainSettings
    from downpour.protos.settings import parse

    settings = parse(TrainSettings, ["--model=fashion128", "--optimizer=sgd", "--epochs=2"], "downpour train")
    assert (settings.optimizer, settings.learning_rate, settings.epochs) == ("sgd", None, 2)
    assert settings.schedule == "constant"
    assert settings.dataset == "fashion_mnist"


def test_a_classifier_is_not_given_numbers() -> None:
    dataset = datasets.load("plane")
    model = models.build("fashion128", dataset.input_shape, 2)
    with pytest.raises(models.ModelError, match="class numbers.*float32"):
        models.check_targets("fashion128", model, dataset)


def by_servers(folder: Path, *flags: str) -> dict[str, Any]:
    """The summary of `downpour train` with two workers."""
    line = [
        sys.executable,
        "-m",
        "downpour.deploy.cli",
        "train",
        "--workers=2",
        f"--runs-dir={folder}",
        "--xla=off",
        *flags,
    ]
    done = subprocess.run(line, env=environment(), cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    summary: dict[str, Any] = json.loads((folder / "latest" / "summary.json").read_text())
    return summary


@pytest.mark.slow
@pytest.mark.timeout(700)
@pytest.mark.parametrize(("model", "table"), [("perceptron", "and"), ("perceptron_sign", "or"), ("xor_mlp", "xor")])
def test_servers_train_truth_tables(tmp_path: Path, model: str, table: str) -> None:
    assert by_servers(tmp_path, f"--model={model}", f"--dataset={table}")["test_accuracy"] == 1.0


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_servers_train_a_regression_to_least_squares(tmp_path: Path) -> None:
    _, best = course_data.closed_form(course_data.plane())
    found = by_servers(tmp_path, "--model=regression")
    assert best * 0.9 < found["test_loss"] < best * 1.35


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_servers_train_a_support_vector_regression_that_loads_in_plain_keras(tmp_path: Path) -> None:
    import keras

    by_servers(tmp_path, "--model=svr")
    arrays = course_data.plane()
    model = keras.models.load_model(tmp_path / "latest" / "model.keras")
    errors = model.predict(arrays["x_test"], verbose=0)[:, 0] - arrays["y_test"]
    _, best = course_data.closed_form(arrays)
    assert np.mean(errors**2) < best * 1.2
    assert np.mean(np.maximum(np.abs(errors) - EPSILON, 0)) < 0.06


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_training_stops_early(tmp_path: Path) -> None:
    flags = ("--model=svr", "--epochs=200", "--early-stopping=3", "--learning-rate=0.05")
    found = by_servers(tmp_path, *flags)
    assert found["status"] == "ended" and found["test_loss"] < 0.06
    assert len([row for row in found["history"] if "val_loss" in row]) < 190
    assert any("early-stopping" in note for note in found["notes"])
