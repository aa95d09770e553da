"""Podman with files of its own, and the manifests of deploy/kubernetes/plain as pods that `podman kube play` accepts.

Podman 4.3, that of Debian 12, starts pods, but neither a StatefulSet nor a Job, and gives a pod no name of a Service.
What differs from Kubernetes is all in `played`.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from downpour.deploy.compose_test import BASE, pip_settings
from tests.support.paths import ROOT

# Without systemd and without the right to raise limits, as in a container; `runc` knows both versions of cgroups.
CONF = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""
SUBNET, SERVER_IP = "10.213.9.0/24", "10.213.9.10"
BUILD_S, CALL_S = 1500.0, 120.0


class PodmanEngine:
    """Podman's command, with images, containers and networks in one folder."""

    def __init__(self, folder: Path) -> None:
        """Write the configuration, and a command `docker`, as deploy/engine.sh calls it."""
        self.folder = folder
        podman = shutil.which("podman")
        assert podman is not None, "podman must be installed: apt-get install podman netavark catatonit runc"
        (folder / "containers.conf").write_text(CONF)
        places = {"root": "data", "runroot": "run", "tmpdir": "tmp", "network-config-dir": "networks"}
        self._command = [podman, *(f"--{flag}={folder / name}" for flag, name in places.items())]
        bin_dir = folder / "bin"
        bin_dir.mkdir(exist_ok=True)
        (bin_dir / "docker").write_text(f'#!/bin/sh\nexec {" ".join(self._command)} "$@"\n')
        (bin_dir / "docker").chmod(stat.S_IRWXU)
        self._environ = {
            **os.environ, **pip_settings(os.environ), "CONTAINERS_CONF": str(folder / "containers.conf"),
            "PATH": f"{bin_dir}:{os.environ['PATH']}",
        }  # fmt: skip

    def call(self, *arguments: str, text: str | None = None, timeout_s: float = CALL_S) -> str:
        """Run a command of podman, and return its output."""
        done = self.run(*arguments, text=text, timeout_s=timeout_s)
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr[-3000:]}"
        return done.stdout

    def run(
        self, *arguments: str, text: str | None = None, timeout_s: float = CALL_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of podman, which may fail."""
        return subprocess.run(
            [*self._command, *arguments], env=self._environ, input=text, capture_output=True, text=True,
            timeout=timeout_s,
        )  # fmt: skip

    def build(self) -> None:
        """Build the images of deploy/Dockerfile."""
        done = subprocess.run(
            ["sh", str(ROOT / "deploy" / "engine.sh"), "base", BASE], env=self._environ, capture_output=True, text=True,
            timeout=BUILD_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        given = {"BASE": done.stdout.strip(), **pip_settings(os.environ)}
        flags = [f"--build-arg={name}={value}" for name, value in given.items() if value]
        for target in ("ps", "worker"):
            image = ["--target", target, "--tag", f"downpour-{target}", "--file", str(ROOT / "deploy" / "Dockerfile")]
            self.call("build", "--network=host", *image, *flags, str(ROOT), timeout_s=BUILD_S)

    def state(self, container: str) -> dict[str, Any]:
        """Return the state of a container, with `Pid`, `Status` and `ExitCode`."""
        (found,) = json.loads(self.call("container", "inspect", container))
        return {**found["State"], "RestartCount": found["RestartCount"]}

    def close(self) -> None:
        """Remove all containers, volumes, networks and images."""
        self.run("pod", "rm", "--force", "--all")
        self.run("system", "reset", "--force")


def played(resource: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the pod of a StatefulSet or of a Job under a name, and the claims of its volumes.

    - An empty directory becomes a claim: podman 4.3 gives it to root, and the processes are not root.
    - A Secret becomes a claim `NAME-access`, which must be filled: podman 4.3 shows a Secret in base64.
    - Ports are left out: podman publishes them on the machine.
    - `$(POD)` is replaced by the name, and the name of the server in the Service is an alias of its address.
    """
    spec = json.loads(json.dumps(resource["spec"]["template"]["spec"]).replace("$(POD)", name))
    claims = []
    for volume in spec["volumes"]:
        if "persistentVolumeClaim" not in volume:
            volume["persistentVolumeClaim"] = {"claimName": f"{name}-{volume['name']}"}
            if "emptyDir" in volume:  # podman refuses the claim of a volume that exists, as that of a Secret does
                claims.append(f"{name}-{volume['name']}")
    for container in spec["containers"]:
        container.pop("ports", None)
    spec["volumes"] = [{"name": each["name"], "persistentVolumeClaim": each["persistentVolumeClaim"]}
                       for each in spec["volumes"]]  # fmt: skip
    spec["hostAliases"] = [{"ip": SERVER_IP, "hostnames": ["train-ps-0.train-ps"]}]
    metadata = {"name": name, "labels": resource["spec"]["template"]["metadata"]["labels"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"hostname": name, **spec}}
    return [*map(claim_of, claims), pod]


def claim_of(name: str) -> dict[str, Any]:
    """Return the claim of a small volume."""
    size = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": size}


def documents(resources: list[dict[str, Any]]) -> str:
    """Return resources as the text of one file."""
    return yaml.safe_dump_all(resources)
