"""`downpour run` of real scripts, in which one line is changed, with real processes and Keras."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.support.cluster import wait_until
from tests.support.scripts import MNIST, SCRIPTS, command, environment, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    folder = tmp_path_factory.mktemp("equal")
    run(folder, "equals_plain.py", str(folder / "report.json"), workers=1, shards=2)
    report: dict[str, dict[str, float]] = json.loads((folder / "report.json").read_text())
    return report


def test_one_worker_with_servers_makes_the_updates_of_plain_keras(equal: dict[str, dict[str, float]]) -> None:
    """Every optimizer, clipping and schedule that is carried, with a regularizer and BatchNormalization."""
    assert len(equal) == 22
    far = {case: found for case, found in equal.items() if found["weights"] > 2e-5 or found["losses"] > 1e-5}
    assert not far
    assert all(found["moved"] > 1e-3 for found in equal.values())


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    done = run(folder, "keras_features.py", str(folder), workers=2, shards=2)
    (folder / "output").write_text(done.stdout + done.stderr)
    return folder


def seen(folder: Path, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"seen-{rank}.json").read_text())
    return found


CASES = (
    "sequential", "functional", "subclassed", "frozen", "custom_step", "callbacks", "scheduled", "several", "terminate",
    "data", "execution", "saved",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_all_workers_end_with_the_same_weights_and_history(features: Path, case: str) -> None:
    first, second = (seen(features, rank)[case] for rank in (0, 1))
    assert first["weights"] == second["weights"]
    assert first["history"] == second["history"] and first["history"]
    assert first["epochs"] == second["epochs"]


def test_moving_statistics_move_and_frozen_layers_do_not(features: Path) -> None:
    found = seen(features, 0)
    assert found["sequential"]["moving"] > 1e-3 and found["sequential"]["moved"] > 1e-3
    assert found["frozen"]["kept"] and found["frozen"]["moved"]


def test_a_callback_stops_all_and_the_learning_rate_reaches_the_servers(features: Path) -> None:
    found = seen(features, 0)["callbacks"]
    assert found["calls"] == len(found["ran"]) == len(found["epochs"]) == 3
    other = seen(features, 1)["callbacks"]
    assert other["ran"] == found["ran"] and other["calls"] == 3
    np.testing.assert_allclose(found["rates"], [0.1, 0.05, 0.025], rtol=1e-6)
    rates = np.load(features / "runs" / "latest" / "trace.npy")["learning_rate"]
    assert np.isclose(rates, 0.05, rtol=1e-6).any()
    assert len(seen(features, 1)["terminate"]["epochs"]) == 1
    assert (features / "best.keras").exists() and list((features / "tensorboard").rglob("events*"))
    assert len((features / "log.csv").read_text().splitlines()) == 4


def test_the_trace_has_every_update_of_all_calls_of_fit(features: Path) -> None:
    summary = json.loads((features / "runs" / "latest" / "summary.json").read_text())
    trace = np.load(features / "runs" / "latest" / "trace.npy")
    assert len(trace) == summary["updates"] + summary["dropped"] > 200


def test_an_epoch_has_the_learning_rate_that_a_callback_gave_it(features: Path) -> None:
    rates = np.load(features / "runs" / "latest" / "trace.npy")["learning_rate"]
    assert [np.isclose(rates, rate, rtol=1e-6).sum() for rate in (0.7, 0.35, 0.175, 0.0875)] == [0, 7, 7, 7]


def test_a_second_fit_continues_the_iterations(features: Path) -> None:
    """203 samples are 7 batches, as in one process; all workers count the updates of all."""
    for rank in (0, 1):
        found = seen(features, rank)["several"]
        assert found["iterations"] == [14, 28, 2] and found["epochs"] == [2, 3]
        assert found["rate"] == pytest.approx(0.05 * 0.9**2.8, rel=1e-5)


def test_the_saved_model_continues_training_in_plain_keras(features: Path) -> None:
    import keras

    rng = np.random.default_rng(5)
    x = rng.normal(size=(203, 6)).astype(np.float32)
    model = keras.models.load_model(features / "model.keras")
    np.testing.assert_allclose(model.predict(x, verbose=0), np.load(features / "predictions.npy"), rtol=1e-5, atol=1e-6)
    assert type(model.optimizer) is keras.optimizers.Adam
    model.fit(x, np.zeros(203, np.int32), epochs=1, verbose=0)
    assert keras.models.load_model(features / "best.keras").count_params() > 0


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("lamb", "SGD, Adagrad, RMSprop, Adam, AdamW.*Lamb.*use AdamW"),
        ("ema", "either use_ema or gradient_accumulation_steps"),
        ("attribute", "one with centralized = True"),
        ("constraint", "must be one that the servers apply"),
        ("outside", "downpour.training"),
        ("twice", "which .* and .* are applied to"),
        ("backup", "BackupAndRestore"),
    ],
)
def test_unsupported_features_are_refused_with_an_alternative(features: Path, what: str, words: str) -> None:
    message = seen(features, 0)["refused"][what]
    assert message
    import re

    assert re.search(words, message), message


def test_only_the_output_of_worker_0_is_shown(features: Path) -> None:
    output = (features / "output").read_text()
    assert output.count("sequential done") == 1
    assert "jit_compile=True is not supported" in output


@pytest.fixture
def disturbed(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    begun = subprocess.Popen(
        command(tmp_path, "long_fit.py", str(tmp_path), "400", workers=2, session_s=2, drain_timeout_s=60),
        env=environment(), cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    yield begun
    if begun.poll() is None:
        begun.kill()
    begun.communicate()


def await_epoch(process: subprocess.Popen[str], epoch: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("EPOCH") and int(line.split()[1]) >= epoch:
            return
    raise AssertionError("the fit ended too early")


def test_a_killed_worker_rejoins_and_all_epochs_are_complete(disturbed: subprocess.Popen[str], tmp_path: Path) -> None:
    await_epoch(disturbed, 1)
    log = (tmp_path / "runs" / "latest" / "logs" / "worker-1.log").read_text()
    os.kill(int(log.split("PID ")[1].split()[0]), signal.SIGKILL)
    output, errors = disturbed.communicate(timeout=600)
    assert disturbed.returncode == 0, errors[-3000:]
    assert "LOSSES 400" in output
    wait_until(lambda: (tmp_path / "epochs-0").exists(), "worker 0 has its history")
    assert (tmp_path / "epochs-0").read_text() == " ".join(map(str, range(400)))
    assert "worker-1 was killed by SIGKILL; restarted" in errors


def test_one_interrupt_ends_fit_and_the_script_continues(disturbed: subprocess.Popen[str], tmp_path: Path) -> None:
    await_epoch(disturbed, 1)
    disturbed.send_signal(signal.SIGINT)
    output, errors = disturbed.communicate(timeout=120)
    assert disturbed.returncode == 0, errors[-3000:]
    losses = next(line for line in output.splitlines() if line.startswith("LOSSES"))
    assert 2 <= int(losses.split()[1]) < 400


def test_the_same_script_runs_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "mnist_dense.py"), "2000", "1", str(MNIST)], env=environment(), cwd=tmp_path,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "test [" in done.stdout


@pytest.mark.parametrize(("transport", "shards"), [("shm", 1), ("shm", 2), ("grpc", 1)])
def test_the_models_weights_are_its_own_memory(tmp_path: Path, transport: str, shards: int) -> None:
    report = tmp_path / "report.json"
    run(tmp_path, "aligned_weights.py", str(report), workers=1, shards=shards, transport=transport)
    found = json.loads(report.read_text())
    run_alone = [sys.executable, str(SCRIPTS / "aligned_weights.py"), str(report)]
    subprocess.run(run_alone, env=environment(), cwd=tmp_path, check=True, capture_output=True, timeout=300)
    alone = json.loads(report.read_text())
    assert (found["steps"], found["changed"]) == (alone["steps"], alone["changed"]) == (100, 0)
    assert found["moved"] == pytest.approx(alone["moved"], rel=1e-3)
    assert found["loss"] == pytest.approx(alone["loss"], rel=1e-3)


def test_a_script_that_fails_fails_the_command(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import sys\nsys.exit(7)\n")
    line = [
        sys.executable,
        "-m",
        "downpour.deploy.cli",
        "run",
        "--workers=1",
        f"--runs-dir={tmp_path}",
        str(tmp_path / "bad.py"),
    ]
    done = subprocess.run(line, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 7
    assert "worker 0 exited with status 7" in done.stderr


def test_a_killed_server_without_checkpoints_ends_the_script_at_once_with_a_message(tmp_path: Path) -> None:
    begun = subprocess.Popen(
        command(tmp_path, "long_fit.py", str(tmp_path), "400", workers=2, checkpoint_every="off"), env=environment(),
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        await_epoch(begun, 1)
        children = psutil.Process(begun.pid).children()
        (server,) = (child for child in children if "downpour.ps" in child.cmdline())
        server.kill()
        _, errors = begun.communicate(timeout=60)
    finally:
        begun.kill()
    assert begun.returncode == 1
    assert "ps-0 was killed by SIGKILL, and is not restarted without checkpoints. Run the script again" in errors
    _, alive = psutil.wait_procs(children, timeout=10.0)
    assert not [child for child in alive if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
