"""Which folder may import which, what is pure, and what never loads TensorFlow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("protos", "ps", "worker", "deploy", "bench")
MOST_MODULES = 15  # in a folder

# Folders (and modules beside them) that a folder may import, apart from itself. `x.*` stands for x and all inside it.
# The order is that of the planes: from what knows nothing of the others to what puts everything together.
PS_FLAGS = {"ps.config", "ps.config_checks"}
MAY_IMPORT: dict[str, set[str]] = {
    "protos": set(),
    "ps.core": {"protos"},
    "ps.config": {"protos", "ps.core", "ps.config_checks"},
    "ps.config_checks": {"protos", "ps.core"},
    "ps.coordinator": {"protos", "ps.core", *PS_FLAGS},
    "ps.trace": {"protos", "ps.core", *PS_FLAGS},
    "ps.storage": {"protos", "ps.core", "ps.trace", *PS_FLAGS},
    "ps.data_plane": {"protos", "ps.core", "ps.trace", "ps.storage", *PS_FLAGS},
    "ps.control_plane": {"protos", "ps.core", "ps.trace", "ps.storage", "ps.data_plane", "ps.coordinator", *PS_FLAGS},
    "ps.monitoring": {
        "protos", "ps.core", "ps.trace", "ps.storage", "ps.data_plane", "ps.coordinator", "ps.control_plane", *PS_FLAGS,
    },
    "ps.endpoints": {"protos", "ps.config", "ps.data_plane", "ps.monitoring"},
    "ps": {"protos", "ps.*"},
    "worker.config": {"protos"},
    "worker.script": set(),
    "worker.quiet_tensorflow": set(),
    "worker.data": {"worker.catalog"},
    "worker.catalog": {"protos"},
    "worker.exchange": {"protos"},
    "worker.compute": {"protos", "worker.catalog"},
    "worker.train": {
        "protos", "ps.core", "worker.catalog", "worker.compute", "worker.config", "worker.exchange",
        "worker.quiet_tensorflow",
    },
    "worker.fit": {
        "protos", "ps.core", "worker.catalog", "worker.compute", "worker.config", "worker.exchange",
        "worker.quiet_tensorflow", "worker.script",
    },
    "worker": {"protos", "ps.core", "worker.*"},
    "deploy.config": {"protos", "ps.config", "ps.core", "worker.config", "worker.catalog"},
    "deploy.view": {"protos", "deploy.config"},
    "deploy.dashboard": {"protos", "ps.config", "ps.core", "ps.trace", "deploy.config", "deploy.view"},
    "deploy.launch": {"protos", "ps.config", "worker.config", "deploy.config", "deploy.view"},
    "deploy.scripts": {"protos", "ps.config", "worker.config", "deploy.config", "deploy.view", "deploy.launch"},
    "deploy": {"protos", "ps.config", "worker.config", "deploy.*"},
    "bench": {"protos", "ps.*", "worker.*", "deploy.*", "bench.*"},
}  # fmt: skip
NO_TENSORFLOW = ("protos", "ps", "deploy", "worker/exchange")
PURE_FOLDERS = ("ps/core", "ps/coordinator")
PURE_MODULES = ("deploy/launch/plan.py", "ps/trace/metrics.py", "ps/trace/call_log.py", "ps/monitoring/divergence.py")
IMPURE = {"grpc", "time", "asyncio", "threading", "socket", "pathlib", "io", "random", "datetime", "subprocess"}


def sources(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "_pb2" not in path.name)


def module_of(path: Path) -> str:
    """The dotted name of a file without `downpour.`, as `ps.core.shard`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for package in PACKAGES for path in sources(package)}


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


def own_imports(path: Path) -> set[str]:
    """Modules of the project that a file imports, without `downpour.`."""
    found = set()
    for name in imports(path):
        if not name.startswith("downpour."):
            continue
        name = name.removeprefix("downpour.")
        while name and name not in MODULES and "_pb2" not in name:
            name = name.rpartition(".")[0]
        found.add(name)
    return found - {"", "__init__"}


def calls(path: Path) -> set[str]:
    """Names of what a file calls directly."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def plane_of(module: str) -> str:
    """The entry of MAY_IMPORT that a module belongs to: the longest that is a prefix of its name."""
    while module not in MAY_IMPORT:
        module = module.rpartition(".")[0]
    return module


def allowed(imported: str, plane: str) -> bool:
    if plane_of(imported) == plane or imported.startswith("protos"):
        return True
    rules = MAY_IMPORT[plane]
    return any(plane_of(imported) == rule or rule.endswith(".*") and imported.startswith(rule[:-2]) for rule in rules)


@pytest.mark.parametrize("plane", MAY_IMPORT)
def test_a_plane_imports_only_what_it_may(plane: str) -> None:
    files = [path for module, path in MODULES.items() if plane_of(module) == plane]
    assert files, f"{plane} has no module: take it out of the table"
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}" for path in files for name in own_imports(path)
        if not allowed(name, plane)
    ]  # fmt: skip
    assert wrong == []


def test_every_folder_of_code_is_in_the_table() -> None:
    folders = {module_of(path / "__init__.py") for path in {path.parent for path in MODULES.values()}}
    inside_bench = {folder for folder in folders if folder.startswith("bench.")}
    assert folders - inside_bench <= set(MAY_IMPORT)


def test_no_two_modules_import_each_other_directly_or_in_a_circle() -> None:
    graph = {module: own_imports(path) & set(MODULES) - {module} for module, path in MODULES.items()}
    while leaves := {module for module, needs in graph.items() if not needs & set(graph)}:
        for module in leaves:
            del graph[module]
    assert sorted(graph) == [], "these modules import each other, or import modules that do"


@pytest.mark.parametrize("folder", NO_TENSORFLOW)
def test_a_folder_never_imports_tensorflow(folder: str) -> None:
    tops = {(path, name.partition(".")[0]) for path in sources(folder) for name in imports(path)}
    assert [str(path) for path, top in tops if top in ("tensorflow", "keras")] == []


@pytest.mark.parametrize("place", [*PURE_FOLDERS, *PURE_MODULES])
def test_what_is_pure_knows_no_network_no_clock_and_no_file(place: str) -> None:
    files = sources(place) if place in PURE_FOLDERS else [ROOT / place]
    assert files
    for path in files:
        tops = {imported.partition(".")[0] for imported in imports(path)}
        assert tops & IMPURE == set(), path
        assert "downpour.protos.parameter_server_pb2_grpc" not in set(imports(path)), path
        assert calls(path) & {"open", "print", "input", "eval", "exec"} == set(), path


@pytest.mark.parametrize("package", ["protos", "ps", "worker", "deploy"])
def test_nothing_is_unpickled_and_nothing_evaluated(package: str) -> None:
    for path in sources(package):
        tops = {name.partition(".")[0] for name in imports(path)}
        assert tops & {"pickle", "marshal", "shelve", "dill", "cloudpickle"} == set(), path
        assert calls(path) & {"eval", "exec", "compile"} == set(), path


def python(code: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, timeout=60, capture_output=True, text=True)


@pytest.mark.parametrize(
    "module", ["downpour", "downpour.ps.server", "downpour.deploy.cli", "downpour.worker.exchange.client"]
)
def test_tensorflow_stays_out(module: str) -> None:
    done = python(f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras')))")
    assert done.returncode == 0, done.stderr


def test_the_public_package_is_imported_without_grpc() -> None:
    done = python("import sys, downpour; dir(downpour); sys.exit('grpc' in sys.modules)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_has_two_names(package: str) -> None:
    """The folders lie at the root of the repository, too, where Python would find them as packages of their own."""
    done = python(f"import {package}")
    assert done.returncode == 1 and f"must be imported as downpour.{package}" in done.stderr
    done = python(f"import downpour.{package} as it; assert it.__name__ == 'downpour.{package}'")
    assert done.returncode == 0, done.stderr


def test_no_folder_is_crowded() -> None:
    count: dict[Path, int] = {}
    for path in MODULES.values():
        if path.name not in ("__init__.py", "__main__.py"):
            count[path.parent] = count.get(path.parent, 0) + 1
    crowded = {str(folder.relative_to(ROOT)): n for folder, n in count.items() if n > MOST_MODULES}
    assert crowded == {}


def test_every_folder_says_what_is_in_it_and_what_it_may_import() -> None:
    for module, path in MODULES.items():
        if path.name == "__init__.py" and "." in module:
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            assert "import" in text and len(text.split()) > 10, f"{path}: {text!r}"


def test_no_module_is_a_drawer_for_everything() -> None:
    names = {path.stem for folder in (*PACKAGES, "tests") for path in sources(folder)}
    assert names & {"utils", "util", "common", "helpers", "helper", "manager", "misc"} == set()
