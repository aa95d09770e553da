"""What the other workers log to a tracker is discarded; only worker 0's run of it remains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from downpour.worker.fit.process.trackers import writes_to_tracker

WANDB = """
def init(project=None, mode=None):
    return (project, mode)
"""
MLFLOW = """
uri = "http://server"
def set_tracking_uri(value):
    global uri
    uri = value
set_registry_uri = set_tracking_uri
class MlflowClient:
    def __init__(self, tracking_uri=None, registry_uri=None):
        self.uri = tracking_uri or uri
from mlflow import tracking
"""
TRACKING = """
def set_tracking_uri(value):
    import mlflow
    mlflow.uri = value
"""
PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
{before}
from downpour.worker.fit.process.trackers import discard_tracking
discard_tracking()
import importlib.util
assert importlib.util.find_spec("wandb") and importlib.util.find_spec("mlflow")  # as scripts ask
import wandb, mlflow
assert wandb.init("mine", mode="offline") == ("mine", "disabled"), wandb.init("mine")
assert wandb.init(project="mine") == ("mine", "disabled")
mlflow.set_tracking_uri("http://another")
mlflow.tracking.set_tracking_uri(uri="http://another")
assert mlflow.MlflowClient("http://another").uri == mlflow.MlflowClient(tracking_uri="http://another").uri == mlflow.uri
assert mlflow.uri.startswith(("file:/", "sqlite:////")) and "downpour-mlflow-" in mlflow.uri
print("/" + mlflow.uri.split(":", 1)[1].removesuffix("/mlflow.db").lstrip("/"))
"""


@pytest.mark.parametrize("before", ["", "import mlflow, wandb"])
def test_another_worker_logs_nothing_that_remains(tmp_path: Path, before: str) -> None:
    (tmp_path / "wandb.py").write_text(WANDB)
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").write_text(MLFLOW)
    (tmp_path / "mlflow" / "tracking.py").write_text(TRACKING)
    program = PROGRAM.format(folder=str(tmp_path), before=before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.strip()).exists()


def test_a_callback_of_a_tracker_is_known_by_its_package() -> None:
    of_wandb = type("WandbMetricsLogger", (), {"__module__": "wandb.integration.keras.callbacks.metrics_logger"})
    mine = type("Mine", (of_wandb,), {"__module__": "__main__"})
    other = type("Other", (), {"__module__": "wandbox"})
    assert writes_to_tracker(of_wandb()) and writes_to_tracker(mine()) and not writes_to_tracker(other())


def test_what_is_logged_to_mlflow_can_be_read_on_every_worker() -> None:
    logging = type("MlflowCallback", (), {"__module__": "mlflow.keras.callback"})
    saving = type("MlflowModelCheckpointCallback", (), {"__module__": "mlflow.tensorflow.callback"})
    mine = type("Mine", (logging,), {"__module__": "__main__"})
    assert not writes_to_tracker(logging()) and not writes_to_tracker(mine()) and writes_to_tracker(saving())
