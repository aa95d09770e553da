"""The whole table, and its form in the documentation."""

from __future__ import annotations

from tests.support.fidelity.arguments import argument_rows
from tests.support.fidelity.callbacks import callback_rows
from tests.support.fidelity.models import model_rows
from tests.support.fidelity.optimizers import optimizer_rows
from tests.support.fidelity.row import Row

ROWS: list[Row] = [*optimizer_rows(), *argument_rows(), *callback_rows(), *model_rows()]
assert len({row.key for row in ROWS}) == len(ROWS)
