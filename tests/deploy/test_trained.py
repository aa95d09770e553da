"""`downpour evaluate` and `downpour export`: what they write predicts what the run's model predicts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.scripts import environment

SAMPLES = np.random.default_rng(0).random((5, 28, 28)).astype(np.float32)


def downpour(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "downpour.deploy.cli", *arguments]
    return subprocess.run(line, env=environment(), cwd=folder, capture_output=True, text=True, timeout=280)


# TensorFlow's tensors with NumPy 2.4, where Keras saves them; it is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")


@pytest.fixture(scope="module", params=["cnn", "svm"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A run directory as a job leaves it, with moving statistics that are not those of a new model."""
    from downpour.worker.catalog.models import build

    folder = tmp_path_factory.mktemp(request.param)
    model = build(request.param, (28, 28), 10)
    rng = np.random.default_rng(1)
    model.set_weights([np.abs(w) + rng.random(w.shape).astype(np.float32) * 0.1 for w in model.get_weights()])
    model.save(folder / "model.keras")
    (folder / "summary.json").write_text(json.dumps({"model": request.param, "dataset": "mnist"}))
    return folder, model.predict(SAMPLES, verbose=0)


def in_keras(path: Path) -> np.ndarray:
    import keras

    return keras.models.load_model(path).predict(SAMPLES, verbose=0)


def as_saved_model(path: Path) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)  # its variables live as long as it does
    return loaded.serve(SAMPLES).numpy()


def on_a_phone(path: Path) -> np.ndarray:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(path))
    taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    interpreter.resize_tensor_input(taken, SAMPLES.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken, SAMPLES)
    interpreter.invoke()
    return interpreter.get_tensor(given)


FORMATS: dict[str, Callable[[Path], np.ndarray]] = {
    "keras": in_keras, "savedmodel": as_saved_model, "tflite": on_a_phone
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("name", FORMATS)
def test_an_exported_model_gives_the_same_predictions(run: tuple[Path, np.ndarray], tmp_path: Path, name: str) -> None:
    folder, expected = run
    to = tmp_path / f"out{'' if name == 'savedmodel' else '.' + name}"
    done = downpour("export", str(folder), f"--format={name}", f"--to={to}", folder=tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == str(to), done.stderr
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(FORMATS[name](to), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_run_and_its_file_are_evaluated_as_the_job_did(tmp_path: Path) -> None:
    flags = ("--model=svr", "--workers=2", "--epochs=5", "--xla=off", f"--runs-dir={tmp_path}")
    trained = downpour("train", *flags, folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    summary: dict[str, Any] = json.loads((tmp_path / "latest" / "summary.json").read_text())
    of_run = downpour("evaluate", str(tmp_path / "latest"), folder=tmp_path)
    found = json.loads(of_run.stdout)
    assert found["loss"] == pytest.approx(summary["test_loss"], rel=1e-5) and found["samples"] == 500
    file = str(tmp_path / "latest" / "model.keras")
    of_file = downpour("evaluate", file, "--dataset=plane", "--loss=mean_absolute_error", folder=tmp_path)
    assert json.loads(of_file.stdout)["loss"] > found["loss"]  # which forgives the first 0.05


def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    for command in ("evaluate", "export"):
        for what, words in ((tmp_path, "a run that ended successfully"), (tmp_path / "no.keras", "does not exist")):
            done = downpour(command, str(what), folder=tmp_path)
            assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "data.npz"), "data.npz is none"),
        (("export", "script.py"), "script.py is none"),
        (("evaluate", "broken.keras"), "broken.keras is none"),
        (("evaluate", "broken.h5"), "broken.h5 is none"),
        (("evaluate", ".", "--dataset=mnits"), "did you mean mnist?"),
        (("evaluate", ".", "--dataset=data.npz"), "a complete .npz file"),
        (("evaluate", ".", "--model=nowhere_to_be_found:f"), "--model must name a module that can be found"),
    ],
)
def test_what_cannot_be_examined_is_refused_before_tensorflow_is_loaded(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    for name in ("data.npz", "script.py", "broken.keras", "broken.h5"):
        (tmp_path / name).write_text("text")
    done = downpour(*arguments, folder=tmp_path)
    assert done.returncode == 2 and words in done.stderr and "load TensorFlow" not in done.stderr, done.stderr


@pytest.fixture(scope="module")
def run_of_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import keras

    folder = tmp_path_factory.mktemp("script")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile("adam", loss="mae", metrics=["mse"])
    model.save(folder / "model.keras")
    (folder / "summary.json").write_text(json.dumps({"model": "sequential", "dataset": "script"}))
    x = np.full((64, 1), 3, np.float32)
    np.savez(folder / "data.npz", x_train=x, y_train=x[:, 0] - 2, x_test=x, y_test=x[:, 0] - 2)
    return folder


def test_the_model_of_a_script_is_evaluated_as_it_was_compiled(run_of_script: Path) -> None:
    done = downpour("evaluate", str(run_of_script), "--dataset", str(run_of_script / "data.npz"), folder=run_of_script)
    found = json.loads(done.stdout)
    assert (found["samples"], found["loss"], found["mse"]) == (64, 2.0, 4.0), done.stderr[-2000:]


@pytest.mark.parametrize("flags", [(), ("--dataset=data.npz", "--loss=mse"), ("--dataset=data.npz", "--scale=1")])
def test_what_the_script_defines_or_nobody_knows_is_refused(run_of_script: Path, flags: tuple[str, ...]) -> None:
    done = downpour("evaluate", str(run_of_script), *flags, folder=run_of_script)
    assert done.returncode == 2 and "script" in done.stderr
