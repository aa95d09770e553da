"""The rows of the peers in the comparison of `downpour bench baselines --peers`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from downpour.bench.competitors.competitors import Competitor, Run, TrainingSpec, common_flags, last_line
from downpour.bench.module_process import module_command
from downpour.protos.system.command import install_command

PACKAGES = ("ray", "torch")  # of the extra `peers`


def _peer(module: str, *extra: str) -> Run:
    def run(job: TrainingSpec, _: Path, timeout_s: float) -> dict[str, Any]:
        command = module_command(f"downpour.bench.peers.{module}", *common_flags(job), "--data", job.data)
        return last_line([*command, "--workers", str(job.workers), *extra], timeout_s)

    return run


PEERS: Mapping[str, Competitor] = {
    "ray": Competitor("Ray actors as in Ray's documentation, 2 workers (PyTorch)", _peer("ray_actors")),
    "torch_rpc": Competitor(
        "PyTorch RPC as in its parameter-server tutorial, 2 workers", _peer("torch_rpc", "--form", "model-on-server")
    ),
    "torch_rpc_gradients": Competitor(
        "PyTorch RPC, gradients computed by the 2 workers", _peer("torch_rpc", "--form", "gradients")
    ),
}


def refusal() -> str:
    """Return which packages of the peers are missing and how they are installed; empty if there is none."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return f"--peers: {' and '.join(missing)} must be installed: {install_command('peers')}" if missing else ""
