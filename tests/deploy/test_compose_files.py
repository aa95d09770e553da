"""The compose files say what docs/deploy.md promises; `make compose-test` runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from downpour.deploy.compose_test import SCENARIOS, pip_settings
from downpour.deploy.config import HealthSettings, StatusSettings
from downpour.deploy.dashboard.config import DashboardSettings
from downpour.protos.settings import Settings, parse
from downpour.ps.config import JobSettings, ServerSettings
from downpour.worker.config import WorkerSettings
from tests.support.paths import ROOT

DEPLOY = ROOT / "deploy"
BASE, SHARDS, TLS = "docker-compose.yml", "docker-compose.shards.yml", "docker-compose.tls.yml"
SHARDS_TLS = "docker-compose.shards-tls.yml"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMMANDS: dict[str, type[Settings]] = {
    "ps": ServerSettings, "worker": WorkerSettings, "status": StatusSettings, "dashboard": DashboardSettings,
}  # fmt: skip


def load(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((DEPLOY / name).read_text())
    assert isinstance(loaded, dict)
    return loaded


def services() -> list[tuple[str, str, dict[str, Any]]]:
    """Every service that is defined whole, not merely changed by an overlay."""
    found = [(name, service, spec) for name in (BASE, SHARDS, TLS) for service, spec in load(name)["services"].items()]
    return [(name, service, spec) for name, service, spec in found if "image" in spec]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DOWNPOUR_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("service", services(), ids=lambda service: service[1])
def test_a_container_can_do_no_more_than_it_must(service: tuple[str, str, dict[str, Any]]) -> None:
    _, name, spec = service
    assert spec["read_only"] and spec["cap_drop"] == ["ALL"]
    assert spec["security_opt"] == ["no-new-privileges:true"]
    assert spec["mem_limit"] and spec["tmpfs"] and spec["init"]
    assert "privileged" not in spec and "user" not in spec, name  # the image's own user is not root


@pytest.mark.parametrize("service", ["ps", "worker", "status", "dashboard"])
def test_a_process_is_restarted_a_limited_number_of_times(service: str) -> None:
    spec = load(BASE)["services"][service]
    assert re.fullmatch(r"on-failure:\d+", spec["restart"])
    assert spec["stop_grace_period"] == "10s"


def test_every_command_is_one_that_the_command_line_takes() -> None:
    seen = set()
    for _, name, spec in services():
        if name == "certs":
            continue
        command, *flags = spec["command"]
        parse(COMMANDS[command], flags, name)
        seen.add(command)
    assert seen == set(COMMANDS)


def test_the_dashboard_is_optional_and_published_on_loopback_under_the_port_that_it_listens_on() -> None:
    spec = load(BASE)["services"]["dashboard"]
    port = spec["environment"]["DOWNPOUR_PORT"]
    assert spec["profiles"] == ["dashboard"] and spec["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert "*extra['dashboard']" in DOCKERFILE
    assert "dashboard" in load(TLS)["services"]


def test_every_variable_is_a_setting() -> None:
    known = {name.upper() for kind in COMMANDS.values() for name in kind.model_fields}
    for file in (BASE, SHARDS, TLS, SHARDS_TLS):
        for service, spec in load(file)["services"].items():
            for variable in spec.get("environment", {}):
                assert variable.removeprefix("DOWNPOUR_") in known, f"{file}, {service}: {variable}"


def test_the_settings_of_the_job_reach_the_server_under_their_own_names() -> None:
    environment = load(BASE)["services"]["ps"]["environment"]
    assert {"DOWNPOUR_MODEL", "DOWNPOUR_EPOCHS", "DOWNPOUR_OPTIMIZER", "DOWNPOUR_LEARNING_RATE"} <= environment.keys()
    for variable, value in environment.items():
        if variable.removeprefix("DOWNPOUR_").lower() in JobSettings.model_fields:
            assert re.fullmatch(rf"\$\{{{variable}:-\w*}}", value), f"{variable}: {value}"


def test_the_cluster_network_is_internal_and_only_status_and_dashboard_are_published() -> None:
    base = load(BASE)
    assert base["networks"]["cluster"] == {"internal": True}
    assert base["services"]["ps"]["networks"] == base["services"]["worker"]["networks"] == ["cluster"]
    published = {name: spec["ports"] for name, spec in base["services"].items() if "ports" in spec}
    assert list(published) == ["status", "dashboard"]
    assert all(port.startswith("127.0.0.1:") for port in published["status"])


def test_servers_are_probed_where_they_listen() -> None:
    for _, name, spec in services():
        if spec["command"][0] != "ps":
            continue
        kind, *probe = spec["healthcheck"]["test"]
        assert (kind, probe[:3]) == ("CMD", ["python", "-m", "downpour.deploy.view.health"]), name
        bind = next(flag for flag in spec["command"] if flag.startswith("--bind="))
        asked = parse(HealthSettings, probe[3:], "probe")
        assert asked.address.rpartition(":")[2] == bind.rpartition(":")[2]
        assert asked.timeout_s < int(spec["healthcheck"]["timeout"].removesuffix("s"))


def test_tls_takes_back_what_the_base_file_allows() -> None:
    for overlay, server in ((TLS, "ps"), (SHARDS_TLS, "ps-1")):
        environment = load(overlay)["services"][server]["environment"]
        assert environment["DOWNPOUR_INSECURE"] == "false"
        assert environment["DOWNPOUR_TLS_DIR"] == "/keys/cluster"


def test_workers_do_not_see_the_keys_of_the_server() -> None:
    overlay = load(TLS)["services"]
    assert overlay["worker"]["volumes"] == overlay["status"]["volumes"] == ["access:/access:ro"]


def test_servers_and_workers_have_the_folder_of_doorbells_in_common() -> None:
    servers = [load(BASE)["services"]["ps"], load(SHARDS)["services"]["ps-1"]]
    for spec in servers:
        folder = spec["environment"]["DOWNPOUR_DOORBELL_DIR"]
        assert f"sockets:{folder}" in spec["volumes"]
    assert load(BASE)["services"]["worker"]["volumes"] == [f"sockets:{folder}:ro"]
    options = load(BASE)["volumes"]["sockets"]["driver_opts"]
    (user,) = re.findall(r"useradd --uid (\d+)", DOCKERFILE)
    assert options["type"] == "tmpfs" and {"mode=0700", f"uid={user}"} <= set(options["o"].split(","))


def test_the_base_is_pinned_and_the_user_is_not_root() -> None:
    assert re.search(r"(?m)^ARG BASE=python:3\.11-slim-bookworm$", DOCKERFILE)
    for target in ("ps", "worker"):
        stage = DOCKERFILE.split(f" AS {target}\n")[1].split("\nFROM ")[0]
        assert "USER downpour" in stage
    assert not re.search(r"(?m)^RUN --mount|^COPY --link|<<", DOCKERFILE), "the classic builder must know it"


def test_the_servers_image_installs_no_tensorflow() -> None:
    stages = re.split(r"(?m)^FROM ", DOCKERFILE)[1:]
    chain, name = [], "ps"
    while name in (named := {stage.split(" AS ")[1].split("\n")[0]: stage for stage in stages if " AS " in stage}):
        chain.append(name)
        name = named[name].split()[0]
    assert chain == ["ps", "ps-packages", "runtime"]
    assert not any("worker.txt" in named[name] or "tensorflow" in named[name] for name in chain)


def test_the_build_context_contains_all_files_of_the_images() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"pyproject.toml", "README.md", "LICENSE", "downpour", "protos", "ps", "worker", "deploy", "bench"} <= kept


def test_every_scenario_names_files_that_exist_and_settings_of_the_job() -> None:
    for scenario, files, settings in SCENARIOS.values():
        assert scenario.__doc__ and all((DEPLOY / file).is_file() for file in files)
        assert settings.keys() <= JobSettings.model_fields.keys()
    assert "downpour.deploy.compose_test" in (ROOT / "Makefile").read_text()


def test_folders_of_this_machine_are_not_passed_to_the_build() -> None:
    environ = {"PIP_INDEX_URL": "file:///here", "PIP_EXTRA_INDEX_URL": "file:///here https://a.example/simple"}
    found = pip_settings(environ)
    assert found["PIP_INDEX_URL"] == "" and found["PIP_EXTRA_INDEX_URL"] == "https://a.example/simple"


@pytest.mark.parametrize("arguments", [[], ["start"], ["begin", "x"]])
def test_the_engine_script_prints_its_usage(arguments: list[str]) -> None:
    done = subprocess.run(["sh", DEPLOY / "engine.sh", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("engine: usage:" if len(arguments) != 2 else "engine: the command must be start")


@pytest.mark.parametrize("module", ["compose_project", "compose_test"])
def test_the_script_needs_only_the_standard_library(module: str) -> None:
    source = (DEPLOY / f"{module}.py").read_text()
    imported = set(re.findall(r"(?m)^(?:from|import) (\w+)", source)) - {"downpour"}
    assert imported <= set(sys.stdlib_module_names)


def test_the_files_that_the_servers_image_removes_exist() -> None:
    (removed,) = re.findall(r"(?m)^RUN rm -r /opt/downpour/(\S+)$", DOCKERFILE)
    assert (ROOT / removed).is_dir() and removed.startswith("downpour/")
