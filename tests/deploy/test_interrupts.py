"""Ctrl-C ends every command without a traceback, in the import of its modules as well as in its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from downpour.deploy import cli
from tests.support.command_line import TIMEOUT_S
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("clean_environment")

WAITING = "import threading\nprint('begun', flush=True)\nthreading.Event().wait()\n"
WITH_FORK = (
    """\
import os, time
ready, write = os.pipe()
if os.fork() == 0:
    os.write(write, b"!")  # Python drops a signal that arrives while a process forks
    time.sleep(60)
    os._exit(1)
os.read(ready, 1)
"""
    + WAITING
)
WITH_THREAD = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n" + WAITING
FAILING_THREAD = """
import threading
gone = threading.Event()
def work():
    gone.wait()
    raise ValueError("what it works for is gone")
thread = threading.Thread(target=work)
thread.start()
print("begun", flush=True)
try:
    threading.Event().wait()
finally:
    gone.set()
    thread.join()
"""
UNINTERRUPTIBLE = "try:\n    " + WAITING.replace("\n", "\n    ") + "\nfinally:\n    threading.Event().wait()\n"


@pytest.mark.parametrize(
    ("program", "times"),
    [(WAITING, 1), (WITH_FORK, 1), (WITH_THREAD, 1), (FAILING_THREAD, 1), (UNINTERRUPTIBLE, 2)],
)
def test_an_interrupted_program_exits_with_130_and_one_line(program: str, times: int, tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(program)
    begun = subprocess.Popen(
        [sys.executable, "-m", "downpour.deploy.command", "waits"], start_new_session=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert begun.stdout is not None and begun.stdout.readline() == "begun\n"
        for _ in range(times):
            os.killpg(begun.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):  # which the second signal does not wait for
                begun.wait(1.0 if times > 1 else TIMEOUT_S)
        _, errors = begun.communicate(timeout=TIMEOUT_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(begun.pid, signal.SIGKILL)  # with the process that it has forked, which holds the pipes open
        begun.communicate()
    assert (begun.returncode, errors) == (130, "downpour: interrupted; there is no result\n")


def test_a_program_has_the_status_and_the_arguments_of_its_module(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(len(sys.argv))\n")
    done = subprocess.run(
        [sys.executable, "-m", "downpour.deploy.command", "ends", "a", "b"], cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
    )  # fmt: skip
    assert done.returncode == 3


@pytest.mark.parametrize(
    "command", ["ps", "worker", "bench", "simulate", "simulate-job", "validate", "replay", "evaluate", "export"]
)
def test_a_command_that_is_interrupted_while_it_imports_has_no_traceback(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that replaces the command imports a module that never ends to load."""
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda program, arguments, environment: started.append(arguments))
    (tmp_path / "model.keras").write_text("a model")
    monkeypatch.setattr("downpour.deploy.trained.is_saved_model", lambda path: True)
    model = f"{tmp_path / 'model.keras'}"
    arguments = {"evaluate": [model], "export": [model], "bench": ["mutants"]}  # each of which imports pydantic
    cli.commands()[command].run(arguments.get(command, []))
    (tmp_path / "pydantic").mkdir()
    (tmp_path / "pydantic" / "__init__.py").write_text(WAITING)
    path = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    begun = subprocess.Popen(
        started[0], start_new_session=True, text=True, env=path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert begun.stdout is not None and begun.stdout.readline() == "begun\n"
        os.killpg(begun.pid, signal.SIGINT)
        _, errors = begun.communicate(timeout=TIMEOUT_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(begun.pid, signal.SIGKILL)
        begun.communicate()
    assert (begun.returncode, errors) == (130, "downpour: interrupted; there is no result\n")
