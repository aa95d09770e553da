"""The resources of the manifests in deploy/kubernetes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
CUSTOM = ("JobSet", "TrainingRuntime", "TrainJob")


def resources(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the resources of a kustomization and of those that it contains."""
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]:
        path = (folder / name).resolve()
        if path.is_dir():
            yield from resources(path)
        else:
            yield from yaml.safe_load_all(path.read_text())


def replicated_jobs(resource: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the Jobs in a JobSet, or in the JobSet that a TrainingRuntime creates."""
    if resource["kind"] not in ("JobSet", "TrainingRuntime"):
        return []
    spec = resource["spec"] if resource["kind"] == "JobSet" else resource["spec"]["template"]["spec"]
    return list(spec["replicatedJobs"])


def core_resources(form: str) -> list[dict[str, Any]]:
    """Return the resources of a form that Kubernetes defines, with the Jobs in custom resources."""
    found = []
    for resource in resources(FOLDER / form):
        if resource["kind"] not in CUSTOM:
            found.append(resource)
        for job in replicated_jobs(resource):
            metadata, spec = job["template"].get("metadata", {}), job["template"]["spec"]
            metadata = {"name": job["name"], **metadata}
            found.append({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    return found
