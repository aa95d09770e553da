"""One word has one meaning: no two public classes of the package share a name."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.support.paths import ROOT

PACKAGES = ("protos", "ps", "worker", "deploy", "bench")


def public_classes() -> dict[str, list[str]]:
    """Return the modules that define each public class, also within functions and conditions, by its name."""
    found: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "_pb2" in path.name:
                continue  # a message may have the name of the class that it is the wire form of
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].add(str(path.relative_to(ROOT)))
    return {name: sorted(modules) for name, modules in found.items()}


def test_the_classes_are_found() -> None:
    assert {"Shard", "Coordinator", "Codec"} <= set(public_classes())


def test_no_two_public_classes_share_a_name() -> None:
    shared = {name: modules for name, modules in public_classes().items() if len(modules) > 1}
    assert not shared, f"each class must have a name of its own: {shared}"
