"""The plain form of the manifests with real containers, by `podman kube play`; `make kube-test` runs this alone."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from downpour.deploy.certs import CertsSettings, certs
from tests.support.cluster import wait_until
from tests.support.manifests import FOLDER, core_resources
from tests.support.processes.podman_engine import SERVER_IP, SUBNET, PodmanEngine, documents, played

pytestmark = [pytest.mark.kube, pytest.mark.timeout(3600)]

EPOCHS, SAMPLES, ACCURACY, LIMIT_S = 4, 57_000, 0.95, 300.0
SETTINGS = {"DOWNPOUR_EPOCHS": str(EPOCHS), "DOWNPOUR_LEARNING_RATE": "0.5"}
SERVER, WORKERS = "train-ps-0", ("train-worker-0", "train-worker-1")


@pytest.fixture(scope="module")
def podman() -> Iterator[PodmanEngine]:
    """An engine with both images, whose folder has a short name, as sockets need one."""
    given = os.environ.get("KUBE_TEST_ENGINE")
    folder = Path(given) if given else Path(tempfile.mkdtemp(prefix="downpour-podman-"))
    folder.mkdir(exist_ok=True)
    engine = PodmanEngine(folder)
    try:
        engine.build()
        yield engine
    finally:
        if given:
            engine.run("pod", "rm", "--force", "--all")
            engine.run("volume", "rm", "--force", "--all")
            engine.run("network", "rm", "--force", "train")
        else:
            engine.close()


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [each for each in core_resources("plain") if each["kind"] == kind]
    return found


def play(podman: PodmanEngine, resources: list[dict[str, Any]], *flags: str) -> None:
    podman.call("kube", "play", "--network=train", *flags, "-", text=documents(resources))


def fill_access(podman: PodmanEngine, keys: Path, pod: str, spec: dict[str, Any]) -> None:
    """Create the volume of a pod's Secret with the files that the manifest gives it."""
    (secret,) = [volume["secret"] for volume in spec["volumes"] if volume["name"] == "access"]
    names = [item["key"] for item in secret.get("items", ())] or sorted(path.name for path in keys.iterdir())
    podman.call("volume", "create", f"{pod}-access")
    place = Path(podman.call("volume", "inspect", "--format={{.Mountpoint}}", f"{pod}-access").strip())
    for name in names:
        (place / name).write_bytes((keys / name).read_bytes())
        os.chown(place / name, 0, spec["securityContext"]["fsGroup"])
        (place / name).chmod(secret["defaultMode"])


def progress(podman: PodmanEngine) -> dict[str, Any] | None:
    """Return the progress that the server reports, or None while it does not answer."""
    status = ["downpour", "status", "127.0.0.1:7171", "--json", "--tls-dir=/access"]
    done = podman.run("exec", f"{SERVER}-ps", *status)
    return json.loads(done.stdout) if done.returncode == 0 else None


def trains(podman: PodmanEngine, samples: int = 0) -> bool:
    found = progress(podman)
    if found is None or found["phase"] != "training":
        return False
    return found["samples"] > samples and sum(worker.get("updates", 0) > 0 for worker in found["workers"]) >= 2


def has_ended(podman: PodmanEngine, container: str) -> bool:
    return podman.state(container)["Status"] == "exited"


def kill(podman: PodmanEngine, container: str) -> None:
    """Kill the process of a container as a failure does: podman has not been asked to end it."""
    os.kill(podman.state(container)["Pid"], signal.SIGKILL)


def logs(podman: PodmanEngine) -> str:
    names = [f"{SERVER}-ps", *(f"{worker}-worker" for worker in WORKERS)]
    return "\n".join(f"--- {name}\n{podman.run('logs', '--tail=30', name)}" for name in names)


def test_the_plain_form_trains_and_survives_a_killed_worker_and_server(podman: PodmanEngine, tmp_path: Path) -> None:
    keys = tmp_path / "access"
    assert certs(CertsSettings(folder=str(keys))) == 0
    settings, servers, workers = of_kind("ConfigMap"), of_kind("StatefulSet"), of_kind("Job")
    settings["data"] |= SETTINGS
    assert workers["spec"]["parallelism"] == len(WORKERS) and (FOLDER / "plain").is_dir()
    podman.call("network", "create", f"--subnet={SUBNET}", "train")
    for pod, resource in ((SERVER, servers), *((worker, workers) for worker in WORKERS)):
        fill_access(podman, keys, pod, resource["spec"]["template"]["spec"])
        play(podman, [settings, of_kind("PersistentVolumeClaim"), *played(resource, pod)] if pod == SERVER
             else played(resource, pod), *([f"--ip={SERVER_IP}"] if pod == SERVER else []))  # fmt: skip
    runs = Path(podman.call("volume", "inspect", "--format={{.Mountpoint}}", "train-runs").strip()) / "train"
    wait_until(lambda: trains(podman), f"two workers train\n{logs(podman)}", LIMIT_S)
    probe = servers["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["exec"]["command"]
    podman.call("exec", f"{SERVER}-ps", *probe)
    kill(podman, f"{WORKERS[1]}-worker")
    wait_until(lambda: any((runs / "checkpoints").glob("[!.]*")), "there is a checkpoint", LIMIT_S)
    wait_until(lambda: trains(podman), "two workers train again", LIMIT_S)
    kill(podman, f"{SERVER}-ps")
    for worker in WORKERS:
        wait_until(partial(has_ended, podman, f"{worker}-worker"), f"{worker} has ended", LIMIT_S)
    codes = {worker: podman.state(f"{worker}-worker")["ExitCode"] for worker in WORKERS}
    assert codes == dict.fromkeys(WORKERS, 0), logs(podman)
    summary = json.loads((runs / "summary.json").read_text())
    assert summary["status"] == "ended" and summary["samples"] == EPOCHS * SAMPLES
    assert summary["test_accuracy"] >= ACCURACY and summary["generation"] >= 2, summary
    assert (runs / "model.keras").stat().st_size > 0
