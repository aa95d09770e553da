"""The manifests of deploy/kubernetes against the schemas of three versions of Kubernetes, and against the settings.

A JobSet and a TrainingRuntime are custom resources without a schema there; the Jobs that they contain are checked.
"""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest

from downpour.protos.settings import Settings, parse
from downpour.ps.config import ServerSettings
from downpour.worker.config import WorkerSettings
from tests.support.manifests import FOLDER, core_resources, resources

pytestmark = pytest.mark.usefixtures("clean_environment")

FORMS = ("plain", "jobset", "trainer")
VERSIONS = ("1.33", "1.35", "1.37")


def pods(form: str) -> list[dict[str, Any]]:
    return [each["spec"]["template"]["spec"] for each in core_resources(form) if each["kind"] in ("Job", "StatefulSet")]


def containers(form: str) -> list[dict[str, Any]]:
    return [container for pod in pods(form) for container in pod["containers"]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("form", FORMS)
def test_every_resource_has_the_schema_of_its_kind(form: str, version: str) -> None:
    checked = 0
    for resource in core_resources(form):
        kubernetes_validate.validate(resource, version, strict=True)
        checked += 1
    assert checked >= 5


def test_the_check_finds_a_misspelt_field() -> None:
    (policy,) = [each for each in core_resources("plain") if each["kind"] == "NetworkPolicy"]
    policy["spec"]["policyTyps"] = policy["spec"].pop("policyTypes")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(policy, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("form", FORMS)
def test_every_process_is_restricted(form: str) -> None:
    for pod in pods(form):
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
            assert own["capabilities"]["drop"] == ["ALL"]
            assert container["resources"]["limits"] and container["resources"]["requests"]


@pytest.mark.parametrize("form", FORMS)
def test_the_keys_of_the_servers_are_not_given_to_workers(form: str) -> None:
    for pod in pods(form):
        (access,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "access"]
        of_server = pod["containers"][0]["name"] == "ps"
        items = [item["key"] for item in access.get("items", ())]
        assert items == ([] if of_server else ["ca.pem", "token"])


@pytest.mark.parametrize("form", FORMS)
def test_the_arguments_are_flags_of_the_commands(form: str) -> None:
    (values,) = [each["data"] for each in core_resources(form) if each["kind"] == "ConfigMap"]
    names = {f"DOWNPOUR_{name.upper()}" for name in ServerSettings.model_fields}
    assert set(values) <= names
    for container in containers(form):
        command, *flags = container["args"]
        flags = [re.sub(r"\$\(\w+\)", "train", flag) for flag in flags if not flag.startswith("--tls-dir")]
        kinds: dict[str, type[Settings]] = {"ps": ServerSettings, "worker": WorkerSettings}
        settings = parse(kinds[command], flags, "prog")
        if isinstance(settings, ServerSettings):
            assert settings.resume and settings.run_dir == "/runs/train"
            assert {each["name"] for each in container["env"]} >= {"DOWNPOUR_ADVERTISE"}
            assert container["startupProbe"]["exec"]["command"][2] == "downpour.deploy.view.health"
        else:
            assert isinstance(settings, WorkerSettings) and settings.server.endswith(":7171")


@pytest.mark.parametrize("form", ["plain", "jobset"])
def test_as_many_workers_are_started_as_the_server_waits_for(form: str) -> None:
    found = core_resources(form)
    (values,) = [each["data"] for each in found if each["kind"] == "ConfigMap"]
    (job,) = [each["spec"] for each in found if each["kind"] == "Job" and "worker" in each["metadata"]["name"]]
    assert str(job["parallelism"]) == str(job["completions"]) == values["DOWNPOUR_WORKERS"]


def test_workers_reach_the_server_by_a_name_that_exists() -> None:
    found = core_resources("plain")
    (service,) = [each for each in found if each["kind"] == "Service"]
    (servers,) = [each for each in found if each["kind"] == "StatefulSet"]
    host = f"{servers['metadata']['name']}-0.{service['metadata']['name']}:7171"
    assert servers["spec"]["serviceName"] == service["metadata"]["name"]
    assert servers["spec"]["template"]["metadata"]["labels"] == service["spec"]["selector"]
    assert f"--server={host}" in [arg for container in containers("plain") for arg in container["args"]]
    (jobset,) = [each for each in resources(FOLDER / "jobset") if each["kind"] == "JobSet"]
    name, network = jobset["metadata"]["name"], jobset["spec"]["network"]
    assert f"--server={name}-ps-0-0.{network['subdomain']}:7171" in [
        arg for container in containers("jobset") for arg in container["args"]
    ]
