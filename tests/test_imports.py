"""Who may import whom, and what never loads TensorFlow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("protos", "ps", "worker", "deploy", "dashboard", "bench", "tests")
EVERYTHING = set(PACKAGES)
# The table of docs/architecture.md: siblings that a package may import; `name.module` allows that module alone.
MAY_IMPORT: dict[str, set[str]] = {
    "protos": set(),
    "ps": {"protos"},
    "worker": {"protos"},
    "deploy": {"protos", "ps.config", "worker.config"},
    "dashboard": {"protos", "ps.config", "worker.config"},
    "bench": EVERYTHING,
    "tests": EVERYTHING,
}
# Data that flags choose from; they import no TensorFlow either.
REGISTRIES = {"worker.models", "worker.datasets"}
NO_TENSORFLOW = ("protos", "ps", "deploy", "dashboard")
PURE = (
    "ps/shard.py", "ps/consistency.py", "ps/staleness.py", "ps/ledger.py", "ps/membership.py", "ps/buffers.py",
    "ps/optimizers.py", "ps/hyper.py", "ps/stepping.py", "ps/metrics.py", "ps/calls.py", "ps/update.py",
    "ps/schedules.py", "ps/coordinator.py", "ps/job.py", "ps/phase.py", "ps/patience.py", "ps/roster.py", "ps/tasks.py",
    "ps/agreement.py", "ps/meeting.py", "ps/carried.py", "ps/divergence.py", "deploy/plan.py",
)  # fmt: skip
IMPURE = {"grpc", "time", "asyncio", "threading", "socket", "pathlib", "io", "random", "datetime"}


def sources(package: str) -> list[Path]:
    return [path for path in (ROOT / package).rglob("*.py") if "_pb2" not in path.name]


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in it, but for those that only types need."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(path: Path) -> set[str]:
    """Names of what a file calls directly."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def allowed(name: str, package: str) -> bool:
    top = name.partition(".")[0]
    if top == package or top not in EVERYTHING:
        return True
    rules = MAY_IMPORT[package] | (REGISTRIES if package == "deploy" else set())
    return any(name == rule or name.startswith(rule + ".") for rule in rules)


@pytest.mark.parametrize("package", [name for name in PACKAGES if (ROOT / name).is_dir()])
def test_a_package_imports_only_the_siblings_that_it_may(package: str) -> None:
    files = sources(package)
    assert files
    found = [(path.relative_to(ROOT), name) for path in files for name in imports(path)]
    wrong = [f"{path}: {name}" for path, name in found if not allowed(name, package)]
    assert wrong == []


@pytest.mark.parametrize("package", [name for name in NO_TENSORFLOW if (ROOT / name).is_dir()])
def test_a_package_never_imports_tensorflow(package: str) -> None:
    tops = {(path, name.partition(".")[0]) for path in sources(package) for name in imports(path)}
    assert [str(path) for path, top in tops if top in ("tensorflow", "keras")] == []


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_knows_no_network_no_clock_and_no_file(name: str) -> None:
    path = ROOT / name
    tops = {imported.partition(".")[0] for imported in imports(path)}
    assert tops & IMPURE == set()
    assert "protos.parameter_server_pb2_grpc" not in set(imports(path))
    assert calls(path) & {"open", "print", "input", "eval", "exec"} == set()


@pytest.mark.parametrize("package", ["protos", "ps", "worker", "deploy"])
def test_nothing_is_unpickled_and_nothing_evaluated(package: str) -> None:
    for path in sources(package):
        tops = {name.partition(".")[0] for name in imports(path)}
        assert tops & {"pickle", "marshal", "shelve", "dill", "cloudpickle"} == set(), path
        assert calls(path) & {"eval", "exec", "compile"} == set(), path


@pytest.mark.parametrize("module", ["ps.server", "deploy.cli", "worker.config", "worker.client"])
def test_tensorflow_stays_out(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_module_is_a_drawer_for_everything() -> None:
    names = {path.stem for package in PACKAGES for path in sources(package)}
    assert names & {"utils", "util", "common", "helpers", "helper", "manager", "misc"} == set()
