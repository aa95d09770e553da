"""The examples of training loops, as a user starts them."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from tests.support.cluster import running
from tests.support.paths import ROOT
from tests.support.scripts import run


def outputs(folder: Path, example: str) -> list[str]:
    """Run an example as two clients of servers that were started by hand, and return what they printed."""
    with running(folder, shards=2, script=True, workers=2) as cluster:
        path = str(ROOT / "examples" / example)
        clients = [
            cluster.start(f"client-{number}", path, cluster.address, env={"PYTHONPATH": str(ROOT)})
            for number in range(2)
        ]
        texts = []
        for client in clients:
            assert client.child.stdout is not None
            texts.append(client.child.stdout.read().decode())
            assert client.wait() == 0, client.errors
        return texts


def test_two_numpy_workers_fit_a_line(tmp_path: Path) -> None:
    for text in outputs(tmp_path, "numpy_worker.py"):
        assert re.match(r"worker [01]: w = \[ ?2\.\d* +-1\.\d* +0\.[45]\d*\], b = (3\.0|2\.9)\d", text), text


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the example needs PyTorch")
def test_two_pytorch_workers_lower_the_loss(tmp_path: Path) -> None:
    for text in outputs(tmp_path, "pytorch_worker.py"):
        assert float(text.split("loss ")[1].split(",")[0]) < 0.4, text  # of one batch; about 1.2 at first


@pytest.mark.slow
def test_a_worker_that_trains_longer_than_worker_0_is_not_ended(tmp_path: Path) -> None:
    done = run(tmp_path, "uneven_clients.py", workers=2)
    assert "waiting until the others have: worker-1" in done.stderr
    (summary,) = tmp_path.glob("runs/*-uneven_clients/summary.json")
    assert json.loads(summary.read_text())["updates"] == 41
