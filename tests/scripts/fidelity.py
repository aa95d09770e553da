"""Runs rows of the table of `tests/support/fidelity` and writes what they give: fidelity.py FOLDER [PREFIX ...]."""

import contextlib
import io
import json
import os
import sys
import traceback
from pathlib import Path

import keras
import numpy as np

import downpour
from tests.support.fidelity.row import REFUSED
from tests.support.fidelity.table import ROWS


def run(row, folder):
    """Run a row in a folder of its own, and return its result as JSON, with the weights in a file beside it."""
    place = folder / f"row-{ROWS.index(row)}"
    place.mkdir(exist_ok=True)
    os.chdir(place)
    keras.backend.clear_session()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = row.run()
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()[-1500:]}
    finally:
        keras.config.set_dtype_policy("float32")
    weights = found.pop("weights")
    np.savez(place / f"weights-{downpour.rank()}.npz", *[np.asarray(w, np.float64) for w in weights])
    return found


folder = Path(sys.argv[1]).resolve()
prefixes = tuple(sys.argv[2:]) or ("",)
results = {}
for row in ROWS:
    # Plain Keras need not train with what the servers refuse.
    if (
        row.can_run
        and not (row.decision == REFUSED and "FIDELITY_PLAIN" in os.environ)
        and row.key.startswith(prefixes)
    ):
        results[row.key] = run(row, folder)
        (folder / f"results-{downpour.rank()}.json").write_text(json.dumps(results, indent=1))
