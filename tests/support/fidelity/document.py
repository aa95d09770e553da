"""The table as a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from tests.support.fidelity.row import REFUSED, SAME, Row

HEAD = """# How training with servers compares with plain Keras

Each row is tested against plain Keras (`make test-fidelity`). *One worker* is compared with plain Keras, to 2·10⁻⁶.
*Two workers, bsp* is compared with one process that takes the batches of both workers at once. With two workers in the
mode `async`, the number of epochs, the names of the logs, the files and all other facts that a row states are those of
plain Keras, and both workers have the same weights at the end.

All columns have been run, with Keras 3.15 and TensorFlow 2.21.

`tests/support/fidelity/` generates the rows of arguments, optimizers and callbacks from Keras's own signatures: an
argument of a new version of Keras fails the test until this table says what becomes of it. *Refused* means that the
script ends before the first step with a message that names the feature.
"""
TITLES = {
    "optimizer": "Arguments of optimizers",
    "compile": "Arguments of `compile`",
    "fit": "Arguments of `fit`",
    "callback": "Callbacks",
    "model": "Models",
    "layer": "Layers with state or random numbers",
    "variable": "Variables that are not trained",
    "data": "Data",
}


def markdown(rows: Sequence[Row]) -> str:
    """Return the page."""
    parts = [HEAD]
    for kind, of_kind in groupby(rows, lambda row: row.kind):
        parts.append(f"\n## {TITLES[kind]}\n\n| feature | one worker | two workers, bsp |\n|---|---|---|\n")
        parts += [f"| {_named(row)} | {_one(row)} | {_bsp(row)} |\n" for row in of_kind]
    return "".join(parts)


def _named(row: Row) -> str:
    return f"`{row.name}`" if row.kind in ("optimizer", "compile", "fit") else row.name


def _one(row: Row) -> str:
    return row.decision if row.decision in (SAME, REFUSED) else row.words


def _bsp(row: Row) -> str:
    if row.decision == REFUSED or row.several != SAME:
        return REFUSED if row.decision == REFUSED or row.bsp == SAME else row.bsp
    return row.bsp
