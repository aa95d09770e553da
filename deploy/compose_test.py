"""`make compose-test`: checks every statement of docs/deploy.md about docker compose with a real engine.

    python3 -m downpour.deploy.compose_test [--only NAME] [--compose "docker compose"] [--engine DIR]

It needs only the standard library. If no engine answers, it starts one (deploy/engine.sh). It removes everything that
it created: containers, networks, volumes, images and the engine. With --engine, the engine of DIR is used and kept.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from downpour.deploy.compose_project import CALL_S, DEPLOY, CheckFailed, Project, call, check, print_line, until

BASE = "python:3.11-slim-bookworm"
BUILD_S = 3600.0
ALL = ["docker-compose.yml", "docker-compose.shards.yml", "docker-compose.tls.yml", "docker-compose.shards-tls.yml"]
RUNS = "import os; print(len([name for name in os.listdir('/runs') if name[0] != '.' and name != 'latest']))"


def check_resumed(summary: Mapping[str, Any]) -> None:
    """Check that a job whose servers were killed resumed from a checkpoint."""
    notes = [note for note in summary["notes"] if "checkpoint" in note]
    check(any("from checkpoint" in note for note in notes), f"the job resumed from a checkpoint: {notes}")


def crashes(project: Project) -> None:
    """Scale from 2 to 4 workers while the job runs, and kill a worker and the server."""
    with project.up() as process:
        project.until("the job trains", project.trains())
        project.compose("up", "--detach", "--no-build", "--no-recreate", "--scale", "worker=4")
        project.until("4 workers have joined", lambda: len(project.progress().get("workers", [])) == 4)
        project.crash("worker")
        project.until("4 workers have joined again", lambda: len(project.progress().get("workers", [])) == 4)
        samples = project.trains()() or project.progress()
        project.crash("ps")
        project.until("the job continues", project.trains(samples["samples"]))
        (server,) = project.containers("ps")
        until("the server is healthy", lambda: project.state(server)["State"]["Health"]["Status"] == "healthy", 60)
        check_resumed(project.end(process))


def killed(project: Project) -> None:
    """After `docker kill`, `up` resumes from the checkpoint; after the end of a run, `up` starts a new one."""
    with project.up() as process:
        progress = project.until("the job trains", project.trains(60_000))
        project.docker("kill", *project.containers("status"), *project.containers("worker"), *project.containers("ps"))
        until("up ends", lambda: process.poll() is not None, 60)
    with project.up() as process:
        again = project.until("the job trains again", project.trains())
        check(again["run"] == progress["run"], "it is the same run")
        check_resumed(project.end(process))
    before = int(project.in_volume(RUNS))
    with project.up() as process:
        fresh = project.until("the next up trains", project.trains())
        check(fresh["run"] != progress["run"] and int(project.in_volume(RUNS)) == before + 1, "it is a new run")
        began = time.monotonic()
        project.compose("stop")
        stop_s = time.monotonic() - began
        containers = [*project.containers("ps"), *project.containers("worker")]
        codes = [project.state(container)["State"]["ExitCode"] for container in containers]
        check(137 not in codes, f"all processes stopped without SIGKILL: exit codes {codes}, {stop_s:.1f} s in total")


def shards(project: Project) -> None:
    """Train on two shards and kill one of them."""
    with project.up() as process:
        progress = project.until("the job trains past an epoch", project.trains(60_000))
        check(progress["shards"] == 2, "on 2 shards")
        project.crash("ps-1")
        project.until("the job continues", project.trains(progress["samples"]))
        check_resumed(project.end(process))


def tls(project: Project) -> None:
    """Train with TLS and a token; a caller without them is refused."""
    with project.up() as process:
        project.until("the job trains", project.trains())
        (server,) = project.containers("ps")
        bare = ["docker", "exec", "--env=DOWNPOUR_TLS_DIR=", server, "downpour", "status", "127.0.0.1:7171"]
        refused = subprocess.run(bare, env=project.environ, capture_output=True, text=True, timeout=CALL_S)
        check(refused.returncode == 1, "a caller without TLS is refused")
        project.end(process)


def both(project: Project) -> None:
    """Train on two shards with TLS and a token."""
    with project.up() as process:
        progress = project.until("the job trains", project.trains())
        check(progress["shards"] == 2, "on 2 shards")
        project.end(process)


SCENARIOS: dict[str, tuple[Callable[[Project], None], list[str], dict[str, object]]] = {
    "crashes": (crashes, ["docker-compose.yml"], {"epochs": 24}),
    "killed": (killed, ["docker-compose.yml"], {"epochs": 8, "learning_rate": 0.3}),
    "shards": (shards, ["docker-compose.yml", "docker-compose.shards.yml"], {"epochs": 12, "learning_rate": 0.3}),
    "tls": (
        tls,
        ["docker-compose.yml", "docker-compose.tls.yml"],
        {"epochs": 3, "learning_rate": 0.5, "transport": "grpc"},
    ),
    "both": (both, ALL, {"epochs": 3, "learning_rate": 0.5}),
}


def pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the package indexes of this machine's pip as variables of the build, without local folders."""
    found = {}
    for name in ("index-url", "extra-index-url", "trusted-host"):
        variable = f"PIP_{name.upper().replace('-', '_')}"
        values = [environ.get(variable, "")]
        for section in ("global", "install"):
            done = subprocess.run(
                [sys.executable, "-m", "pip", "config", "get", f"{section}.{name}"], capture_output=True, text=True
            )
            values.append(done.stdout.strip() if done.returncode == 0 else "")
        words = next((text for text in values if text), "").split()
        found[variable] = " ".join(word for word in words if not word.startswith("file:"))
    return found


def compose_command(environ: Mapping[str, str]) -> list[str]:
    """Return `docker compose` if it is installed, and `docker-compose` otherwise."""
    new = subprocess.run(["docker", "compose", "version"], env=environ, capture_output=True)
    return ["docker", "compose"] if new.returncode == 0 else ["docker-compose"]


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Build the images and run the scenarios."""
    base = call(["sh", str(DEPLOY / "engine.sh"), "base", BASE], environ, BUILD_S).strip()
    environ = {**environ, **pip_settings(environ), "BASE": base}
    compose = shlex.split(options.compose) if options.compose else compose_command(environ)
    print_line(f"{call([*compose, 'version'], environ).splitlines()[0]}, base image {base}")
    began = time.monotonic()
    Project(compose, environ, ["docker-compose.yml"]).compose("build", "ps", "worker", timeout_s=BUILD_S)
    for image in ("downpour-ps", "downpour-worker"):
        size = int(call(["docker", "image", "inspect", "--format={{.Size}}", image], environ))
        print_line(f"{image}: {size / 1e6:,.0f} MB")
    print_line(f"built in {time.monotonic() - began:.0f} s")
    code = "import importlib.util as u; print(u.find_spec('tensorflow'))"
    found = call(["docker", "run", "--rm", "--entrypoint=python", "downpour-ps", "-c", code], environ).strip()
    check(found == "None", "the server's image has no TensorFlow")
    for name in options.only or SCENARIOS:
        scenario, files, settings = SCENARIOS[name]
        print_line(f"--- {name}: {(scenario.__doc__ or '').strip()}")
        project = Project(compose, environ, files, **settings)
        try:
            scenario(project)
        finally:
            project.down()
    print_line("all checks passed")


def main() -> int:
    """Start an engine if none answers, run the scenarios, and remove everything that was created."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="run this scenario; may be repeated")
    parser.add_argument("--compose", help="command of compose (default: docker compose or docker-compose)")
    parser.add_argument("--engine", help="folder of an engine to use and keep (default: a temporary one)")
    options = parser.parse_args()
    folder = options.engine or tempfile.mkdtemp(prefix="downpour-engine-")
    engine = ["sh", str(DEPLOY / "engine.sh")]
    environ = dict(os.environ)
    if options.engine and (Path(folder) / "docker.sock").exists():
        environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # runs every `finally`
    images = ["downpour-ps", "downpour-worker", "downpour-base"]
    try:
        variable = call([*engine, "start", folder], environ, 600.0).strip()
        if variable:
            environ["DOCKER_HOST"] = variable.partition("=")[2]
        run(options, environ)
    except (CheckFailed, subprocess.TimeoutExpired) as failure:
        print_line(f"FAILED: {failure}")
        return 1
    finally:
        if not options.engine:
            subprocess.run(["docker", "rmi", "--force", *images], env=environ, capture_output=True)
            subprocess.run([*engine, "stop", folder], env=environ)
    return 0


if __name__ == "__main__":
    sys.exit(main())
