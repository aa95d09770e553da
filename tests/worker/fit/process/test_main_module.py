"""A script finds what it finds with `python`: its arguments, path and `__file__`, and its own classes to pickle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPT = """
import inspect, os, pickle, sys
class Thing: pass
os.makedirs("elsewhere", exist_ok=True); os.chdir("elsewhere")
print(sys.argv, __file__, sys.path[0], __name__, __doc__, os.path.exists(__file__))
print(type(pickle.loads(pickle.dumps(Thing()))).__module__, inspect.getsource(Thing).strip())
print(sys.modules["__main__"].Thing is Thing)
"""


@pytest.mark.parametrize("command", [["train.py", "a", "--b"], ["package/train.py"], ["-m", "package.train", "--c"]])
def test_a_script_finds_what_python_gives_it(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "package").mkdir()
    for path in ("train.py", "package/train.py"):
        (tmp_path / path).write_text(SCRIPT)
    runner = (
        f"import sys; sys.path[0] = {str(ROOT)!r}\n"
        "from downpour.worker.fit.process.main_module import run_main\n"
        f"sys.path.pop(0); run_main({command!r})"
    )
    expected, found = (
        subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        for arguments in (command, ["-c", runner])
    )
    assert found == expected
