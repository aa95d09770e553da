"""Which folder may import which, what is pure, what never loads TensorFlow, and that no module has two names.

Imports count wherever they are in a file. Those under `if TYPE_CHECKING:` do not run; they count only for the circles
of planes, which would be circles for a reader too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.support.import_rules import IMPURE_IMPORTS, MAY_IMPORT, NO_TENSORFLOW, PURE_PROTOS, permitted, plane_of
from tests.support.paths import ROOT
from tests.support.sources import MODULES, PACKAGES, module_of, sources

PURE_FOLDERS = ("ps/core", "ps/coordinator")
PURE_MODULES = (
    "deploy/launch/plan.py",
    "deploy/engines/place.py",
    "deploy/engines/task_plan.py",
    "deploy/doctor/findings.py",
    "ps/trace/metrics.py",
    "ps/trace/call_log.py",
    "ps/monitoring/divergence.py",
)
PURE_IMPORTS = {
    "__future__", "abc", "bisect", "collections", "dataclasses", "difflib", "downpour", "enum", "functools", "hashlib",
    "heapq", "itertools", "math", "numpy", "operator", "pydantic", "pydantic_core", "re", "struct", "typing",
}  # fmt: skip
MEMORY = {"mmap", "os"}  # of the shared memory that weights are in
MAY_MAP_MEMORY = "ps/core/buffers.py"
IMPURE_CALLS = {
    "open", "print", "input", "np.load", "np.save", "np.savez", "np.savez_compressed", "np.memmap", "np.fromfile",
    "np.loadtxt", "np.savetxt", "os.open", "os.system", "os.popen",
}  # fmt: skip
EVALUATING = {"eval", "exec", "compile", "__import__"}


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text())


def for_types(node: ast.AST) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`, whose body only a type checker reads."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def statements(node: ast.AST, types: bool) -> Iterator[ast.AST]:
    """All nodes below a node; without `types`, not those that only a type checker reads."""
    yield node
    for field, value in ast.iter_fields(node):
        if for_types(node) and field == "body" and not types:
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield from statements(each, types)


def imports(path: Path, types: bool = False) -> Iterator[str]:
    """Dotted names that a file imports, wherever in it; with `types`, those that only types need as well."""
    for node in statements(tree(path), types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path, types: bool = False) -> set[str]:
    """Modules of the project that a file imports, without `downpour.`; `""` is the public package itself."""
    found = set()
    for name in imports(path, types):
        if not name.startswith("downpour."):
            continue
        name = name.removeprefix("downpour.")
        while name and name not in MODULES and "_pb2" not in name:
            name = name.rpartition(".")[0]
        found.add(name)
    return found


def calls(path: Path) -> set[str]:
    """What a file calls, as it is written there: `open`, `np.load`."""
    nodes = ast.walk(tree(path))
    return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}


def in_circles(graph: dict[str, set[str]]) -> list[str]:
    """The nodes of a graph that are in a circle, or lead to one."""
    graph = dict(graph)
    while leaves := {node for node, needs in graph.items() if not needs & set(graph)}:
        for node in leaves:
            del graph[node]
    return sorted(graph)


@pytest.mark.parametrize("plane", MAY_IMPORT)
def test_a_plane_imports_only_what_it_may(plane: str) -> None:
    files = [path for module, path in MODULES.items() if plane_of(module) == plane]
    assert files, f"{plane} has no module: take it out of the table"
    wrong = [  # the public package is for scripts: it leads everywhere
        f"{path.relative_to(ROOT)} imports {name or 'downpour'}" for path in files for name in own_imports(path)
        if not (name and plane_of(name) in {plane, *permitted(plane)})
    ]  # fmt: skip
    assert wrong == []


def test_every_folder_of_code_is_in_the_table() -> None:
    folders = {module_of(path / "__init__.py") for path in {path.parent for path in MODULES.values()}}
    assert folders <= set(MAY_IMPORT)
    rules = set().union(*MAY_IMPORT.values())
    assert {rule.removesuffix(".*") for rule in rules} <= set(MAY_IMPORT), "each rule names a row"


def test_no_two_modules_import_each_other_directly_or_in_a_circle() -> None:
    graph = {module: own_imports(path) & set(MODULES) - {module} for module, path in MODULES.items()}
    assert in_circles(graph) == [], "these modules import each other, or import modules that do"


def test_no_planes_need_each_other_not_even_for_types() -> None:
    graph: dict[str, set[str]] = {plane: set() for plane in MAY_IMPORT}
    for module, path in MODULES.items():
        graph[plane_of(module)] |= {plane_of(name) for name in own_imports(path, types=True) if name}
    assert in_circles({plane: needs - {plane} for plane, needs in graph.items()}) == []


def test_the_table_allows_no_circle_of_planes() -> None:
    assert in_circles({plane: permitted(plane) for plane in MAY_IMPORT}) == []


def test_a_package_imports_none_of_its_modules_when_it_is_imported() -> None:
    wrong = {module for module, path in MODULES.items() if path.name == "__init__.py" and own_imports(path)}
    assert wrong == set()


def test_no_module_imports_one_that_is_run_as_a_command() -> None:
    """It would be in memory twice: as `__main__` and under its own name."""
    wrong = {module for module, path in MODULES.items() for name in own_imports(path) if name.endswith("__main__")}
    assert wrong == set()


def test_modules_are_imported_by_statements() -> None:
    """Else none of these tests would see it."""
    for path in MODULES.values():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                own = "downpour" in ast.unparse(node)
                assert not own or path == ROOT / "bench" / "__main__.py", f"{path}: {ast.unparse(node)}"


@pytest.mark.parametrize("folder", NO_TENSORFLOW)
def test_a_folder_never_imports_tensorflow(folder: str) -> None:
    tops = {(path, name.partition(".")[0]) for path in sources(folder) for name in imports(path)}
    assert [str(path) for path, top in tops if top in ("tensorflow", "keras")] == []


def impurities(path: Path) -> set[str]:
    """What a file itself imports or calls that no pure module may."""
    tops = {imported.partition(".")[0] for imported in imports(path)}
    called = calls(path)
    return {
        *(tops - PURE_IMPORTS - (MEMORY if path == ROOT / MAY_MAP_MEMORY else set())),
        *(own_imports(path) & {"protos.parameter_server_pb2_grpc"}),
        *(called & (IMPURE_CALLS | EVALUATING)),
        *(name for name in called if name.startswith("np.random.") and name != "np.random.default_rng"),
        *(name for name in called if name.endswith(".tofile")),
    }


@pytest.mark.parametrize("place", [*PURE_FOLDERS, *PURE_MODULES])
def test_pure_modules_import_no_network_clock_or_file(place: str) -> None:
    files = sources(place) if place in PURE_FOLDERS else [ROOT / place]
    assert files and {path: found for path in files if (found := impurities(path))} == {}


def reached_by_pure_folders(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """The modules of the pure folders and all that they import, however many imports away, with what each imports.

    An import of IMPURE_IMPORTS counts for its importer, and is not followed.
    """
    folders = tuple(folder.replace("/", ".") for folder in PURE_FOLDERS)
    waiting = [module for module in modules if module.startswith(folders)]
    reached: dict[str, set[str]] = {}
    while waiting:
        if (module := waiting.pop()) not in reached:
            reached[module] = own_imports(modules[module])
            followed = {name for name in reached[module] if (module, name) not in IMPURE_IMPORTS}
            waiting += followed & set(modules)
    return reached


def impure_imports(modules: Mapping[str, Path]) -> set[str]:
    """What makes the pure folders impure: imports of `protos` that are not listed, and impure modules behind others."""
    reached = reached_by_pure_folders(modules)
    return {
        f"{module} imports {name}" for module, names in reached.items() for name in names
        if name.startswith("protos") and name not in PURE_PROTOS and (module, name) not in IMPURE_IMPORTS
    } | {f"{module} uses {what}" for module in reached for what in impurities(modules[module])}  # fmt: skip


def test_what_the_pure_folders_import_is_pure_however_many_imports_away() -> None:
    assert impure_imports(MODULES) == set()


def test_no_exception_for_the_pure_folders_is_without_use() -> None:
    reached = reached_by_pure_folders(MODULES)
    assert {name for names in reached.values() for name in names} >= PURE_PROTOS
    assert {(module, name) for module, names in reached.items() for name in names} >= set(IMPURE_IMPORTS)


@pytest.mark.parametrize("imported", ["system.clock", "channel", "logs", "status_codes", "settings"])
@pytest.mark.parametrize("folder", ["ps.core", "ps.coordinator.fit"])
def test_an_impure_import_in_a_pure_folder_is_refused(folder: str, imported: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(f"def late():\n    from downpour.protos.{imported} import anything\n")
    assert f"{folder}.planted imports protos.{imported}" in impure_imports({**MODULES, f"{folder}.planted": planted})


@pytest.mark.parametrize("module", ["protos.coverage", "protos.sentences.refusals", "ps.config_checks"])
def test_an_impurity_behind_an_import_is_refused(module: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("import time\nfrom downpour.protos.system import clock\n")
    found = impure_imports({**MODULES, module: planted})
    assert {f"{module} uses time", f"{module} imports protos.system.clock"} <= found


@pytest.mark.parametrize("package", ["protos", "ps", "worker", "deploy"])
def test_nothing_is_unpickled_and_nothing_evaluated(package: str) -> None:
    for path in sources(package):
        tops = {name.partition(".")[0] for name in imports(path)}
        assert tops & {"pickle", "marshal", "shelve", "dill", "cloudpickle"} == set(), path
        assert calls(path) & EVALUATING == set(), path


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, timeout=60, capture_output=True, text=True
    )


IMPORT_ALL = """
import importlib, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert not {"tensorflow", "keras"} & set(sys.modules), f"{name} imports TensorFlow"
names = {}
for name, module in sys.modules.items():
    if getattr(module, "__file__", None) and name != "__main__":
        names.setdefault(os.path.realpath(module.__file__), set()).add(name)
own = {path: each for path, each in names.items() if path.startswith(os.getcwd()) and "site-packages" not in path}
double = [each for each in own.values() if len(each) > 1]
assert not double, f"these are one module: {double}"
"""


@pytest.mark.parametrize("folder", NO_TENSORFLOW)
def test_no_module_of_a_folder_loads_tensorflow_or_a_module_under_two_names(folder: str) -> None:
    """Import in a process, because reading the sources does not show indirect imports."""
    modules = [module_of(path) for path in sources(folder) if path.name != "__main__.py"]
    done = python(IMPORT_ALL, *(f"downpour.{module}" for module in modules))
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


def test_no_test_module_is_imported_by_another() -> None:
    """What several tests need is in `tests/support`."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}" for path in sources("tests") for name in imports(path)
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    ]  # fmt: skip
    assert wrong == []
