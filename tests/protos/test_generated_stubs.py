"""The stubs in the repository are what the contract generates, byte for byte."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PROTOS = ROOT / "protos"
STUBS = (
    "events_pb2.py", "events_pb2.pyi", "parameter_server_pb2.py", "parameter_server_pb2.pyi",
    "parameter_server_pb2_grpc.py",
)  # fmt: skip


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("protos")
    outs = [f"--{kind}={out}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    for name, count in (("events", 2), ("parameter_server", 3)):
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outs[:count], f"downpour/protos/{name}.proto"]
        done = subprocess.run(command, cwd=PROTOS.parent, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    return out / "downpour" / "protos"


@pytest.mark.parametrize("name", STUBS)
def test_a_stub_is_current(fresh: Path, name: str) -> None:
    assert (fresh / name).read_text() == (PROTOS / name).read_text(), "run `make protos` and commit what it writes"


def test_there_is_no_other_stub(fresh: Path) -> None:
    assert sorted(path.name for path in fresh.iterdir()) == sorted(STUBS)
    assert sorted(path.name for path in PROTOS.glob("*_pb2*")) == sorted(STUBS)
