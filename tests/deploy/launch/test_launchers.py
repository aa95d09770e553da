"""Every launcher keeps the contract of launcher_contract.py: local, by hand, TF_CONFIG."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.cluster import Process
from tests.support.launcher_contract import JOB, Launched, Launcher, announced

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DOWNPOUR = ("-m", "downpour.deploy.cli")


class Local(Launcher):
    """`downpour train`."""

    def start(self, folder: Path, environ: dict[str, str]) -> Launched:
        flags = ["--workers=2", f"--runs-dir={folder / 'runs'}", *JOB]
        launcher = Process(folder / "launcher.log", *DOWNPOUR, "train", *flags, env=environ)
        log = folder / "runs" / "latest" / "logs" / "ps-0.log"
        return Launched([launcher], lambda: str(announced(log)["address"]))


class ByHand(Launcher):
    """Three lines in three terminals; nobody starts the killed worker again."""

    def start(self, folder: Path, environ: dict[str, str]) -> Launched:
        run = f"--run-dir={folder / 'run'}"
        server = Process(folder / "ps.log", *DOWNPOUR, "ps", run, "--workers=2", *JOB, env=environ)
        address = str(server.announcement()["address"])
        workers = [
            Process(folder / f"worker-{number}.log", *DOWNPOUR, "worker", f"--server={address}", env=environ)
            for number in range(2)
        ]
        return Launched([*workers, server], lambda: address, victim=workers[1])


class TFConfig(Launcher):
    """A chief, a worker and an evaluator, which find their places in `TF_CONFIG`; the worker is killed."""

    def start(self, folder: Path, environ: dict[str, str]) -> Launched:
        cluster = {"ps": ["127.0.0.1:0"], "chief": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"]}

        def task(command: str, kind: str, *flags: str) -> Process:
            config = json.dumps({"cluster": cluster, "task": {"type": kind, "index": 0}, "environment": "cloud"})
            return Process(folder / f"{kind}.log", *DOWNPOUR, command, *flags, env={**environ, "TF_CONFIG": config})

        server = task("ps", "ps", f"--run-dir={folder / 'run'}", *JOB)
        cluster["ps"] = [str(server.announcement()["address"])]
        chief, worker, evaluator = (task("worker", kind) for kind in ("chief", "worker", "evaluator"))
        return Launched([chief, worker, evaluator, server], lambda: cluster["ps"][0], victim=worker)


@pytest.mark.parametrize("launcher", [Local(), ByHand()], ids=lambda launcher: type(launcher).__name__)
def test_the_contract_holds(launcher: Launcher, tmp_path: Path) -> None:
    launcher.check(tmp_path)


def test_the_contract_holds_with_tf_config_and_the_evaluator_only_evaluates(tmp_path: Path) -> None:
    run = TFConfig().check(tmp_path)
    assert set(np.load(run / "trace.npy")["worker"]) == {0, 1}
    assert "test loss" in (tmp_path / "evaluator.log").read_text()
