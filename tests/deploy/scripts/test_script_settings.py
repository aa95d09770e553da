"""Every setting of `downpour run`, by flag or variable, reaches the processes that have it, or is refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from downpour.deploy.certs import CertsSettings, certs
from downpour.deploy.config import TrainSettings
from downpour.deploy.launch.environment import child_environment
from downpour.deploy.launch.plan import ProcessSpec, ShardFlags
from downpour.deploy.scripts.local_cluster import LocalCluster
from downpour.deploy.scripts.script_launcher import script_plan
from downpour.deploy.scripts.script_settings import INHERITED, RunSettings, refused_variables
from downpour.deploy.scripts.script_task import command_line
from downpour.deploy.scripts.tf_config import read
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.protos.settings import Settings, flag, parse, split_positional
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.admission import settings_with_optimizers
from downpour.worker.config import ScriptSettings, WorkerSettings
from tests.support.scripts import MNIST, command, environment

pytestmark = pytest.mark.usefixtures("clean_environment")

ADDRESSES = {"ps-0": "127.0.0.1:4000", "ps-1": "127.0.0.1:4001"}
KINDS: dict[str, type[Settings]] = {"downpour.ps": ServerSettings, "downpour.worker.fit": ScriptSettings}
# A value other than the default for every setting; the two of files are those of the fixture.
VALUES: dict[str, Any] = {
    "workers": 3, "shards": 2, "transport": "grpc", "codec": "int8", "session_s": 33.0, "reconnect_s": 44.0,
    "drain_timeout_s": 5.5, "mode": "ssp:2", "staleness_policy": "delay_adaptive", "version_memory": 77,
    "warm_start": 5, "momentum_correction": True, "nonfinite_limit": 4, "threads": 2, "seed": 9, "worker_restarts": 1,
    "tensorboard": False, "dashboard": True, "runs_dir": "elsewhere", "metrics_port": 9191, "log_format": "json",
    "tls_dir": "", "token_file": "", "clip_norm": 2.5, "lease_batches": 3, "idle_timeout_s": 600.0, "dry_run": True,
    "spread_validation": True, "push_every": 4, "fetch_every": 5, "overlap": True,
    "gpus_per_worker": 0.5, "server_restarts": 2, "checkpoint_every": "7s", "checkpoint_keep": 8,
    "resume": "runs/before", "record": "on",
}  # fmt: skip
NOT_PASSED = {  # of the launcher alone
    "gpus_per_worker", "runs_dir", "worker_restarts", "server_restarts", "dashboard", "dry_run", "resume"
}  # fmt: skip


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("access") / "keys"
    assert certs(CertsSettings(folder=str(folder))) == 0
    return folder


def value_of(name: str, credentials: Path) -> Any:
    return {"tls_dir": str(credentials), "token_file": str(credentials / "token")}.get(name, VALUES[name])


def as_flag(name: str, value: Any) -> str:
    typed = flag(name)
    return (typed if value else "--no-" + typed[2:]) if isinstance(value, bool) else f"{typed}={value}"


def as_received(spec: ProcessSpec, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings | None:
    """Return the settings that a process of the plan reads from its flags and its environment."""
    if spec.module not in KINDS:
        return None
    own = child_environment(environ, spec.env, spec.set_by_flags)
    with monkeypatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("DOWNPOUR_")]:
            patch.delenv(name)
        for name, value in own.items():
            patch.setenv(name, value)
        flags = spec.command("python", ADDRESSES)[4:]
        if spec.role == "worker":
            flags, script = split_positional(ScriptSettings, flags)
            assert script == ["train.py", "--its-own"]
        return parse(KINDS[spec.module], flags, "prog")


def test_every_setting_has_a_value_to_try() -> None:
    assert set(VALUES) == set(RunSettings.model_fields)


@pytest.mark.parametrize("by", ["flag", "variable"])
@pytest.mark.parametrize("name", list(RunSettings.model_fields))
def test_a_setting_reaches_every_process_that_has_it(
    name: str, by: str, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = value_of(name, credentials)
    variable = f"DOWNPOUR_{name.upper()}"
    if by == "variable":
        monkeypatch.setenv(variable, str(value))
    flags = [as_flag(name, value)] if by == "flag" else []
    settings = parse(RunSettings, [*flags, *(["--shards=2"] if name != "shards" else [])], "downpour run")
    assert getattr(settings, name) == value and not refused_variables(os.environ)
    received = 0
    for spec in script_plan(settings, "run", ["train.py", "--its-own"], devices=["0", "1"]):
        found = as_received(spec, dict(os.environ), monkeypatch)
        if found is None or name in NOT_PASSED or not hasattr(found, name):
            continue
        if spec.role == "ps" and spec.number and name not in ShardFlags.model_fields:
            continue  # it receives the settings of the job from shard 0
        assert getattr(found, name) == value, spec.name
        received += 1
    if name not in NOT_PASSED:
        assert received > 0, "no process received it"


@pytest.mark.parametrize("name", ["tls_dir", "token_file"])
@pytest.mark.parametrize("task", [("ps", 0), ("ps", 1), ("chief", 0), ("worker", 0)])
def test_a_task_of_a_platform_receives_the_credentials(name: str, task: tuple[str, int], credentials: Path) -> None:
    cluster = {"ps": ["a:1", "b:1"], "chief": ["c:1"], "worker": ["d:1"]}
    text = json.dumps({"cluster": cluster, "task": {"type": task[0], "index": task[1]}})
    settings = parse(RunSettings, [as_flag(name, value_of(name, credentials))], "prog")
    module, *flags = command_line(read(text), settings, ["train.py"], {})
    kind = KINDS[module]
    assert getattr(parse(kind, split_positional(kind, flags)[0], "prog"), name) == value_of(name, credentials)


@pytest.mark.parametrize("name", sorted(INHERITED))
def test_a_setting_without_a_flag_is_inherited(name: str) -> None:
    variable = {f"DOWNPOUR_{name.upper()}": "7"}
    assert not refused_variables(variable)
    specs = script_plan(RunSettings(), "run", ["train.py"])
    kept = [spec for spec in specs if variable.items() <= child_environment(variable, {}, spec.set_by_flags).items()]
    assert {name for spec in kept for name in KINDS[spec.module].model_fields} >= {name}


def test_every_other_variable_is_refused_by_name() -> None:
    kinds = (ServerSettings, ScriptSettings, WorkerSettings, TrainSettings)
    every = {name for kind in kinds for name in kind.model_fields}
    for name in sorted(every - set(RunSettings.model_fields) - INHERITED):
        variable = f"DOWNPOUR_{name.upper()}"
        assert variable in refused_variables({variable: "7"})
        assert not refused_variables({variable: ""})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(variable, "7")
            with pytest.raises(ValueError, match=variable):
                LocalCluster(workers=1)


def test_a_refused_variable_ends_the_command_before_anything_is_started(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "downpour.deploy.cli", "run", "--runs-dir", str(tmp_path / "runs"), __file__],
        env={**environment(), "DOWNPOUR_EPOCHS": "3"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "DOWNPOUR_EPOCHS" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def script_settings(**own: Any) -> ServerSettings:
    return ServerSettings(model="script", dataset="script", script=True, momentum_correction=True, **own)


def test_the_momentum_is_corrected_of_the_optimizer_that_the_script_brings() -> None:
    spec = pb.OptimizerSpec(name="momentum", hyperparameters={"momentum": 0.9})
    assert settings_with_optimizers(script_settings(), [spec]).momentum_correction


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_an_optimizer_without_momentum_is_refused_when_it_arrives(name: str) -> None:
    with pytest.raises(Unsupported, match=f"--momentum-correction .* {name}, has none"):
        settings_with_optimizers(script_settings(), [pb.OptimizerSpec(name=name)])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_script_trains_with_tls_a_token_and_corrected_momentum(tmp_path: Path, credentials: Path) -> None:
    own = {"DOWNPOUR_TLS_DIR": str(credentials), "DOWNPOUR_TOKEN_FILE": str(credentials / "token")}
    line = command(tmp_path, "momentum.py", str(MNIST), workers=2, shards=2, momentum_correction=True)
    done = subprocess.run(line, env={**environment(), **own}, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "RESULT" in done.stdout, done.stderr[-3000:]
