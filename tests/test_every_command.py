"""Every command that README, the documentation and `--help` show works after the README's own set-up.

A clone of the repository gets an environment by `deploy/setup.sh worker`, as `make train` does; SHOWN_COMMANDS_TREE may
name a clone that has one. Each command has LIMIT_S; one that still runs is interrupted, as Ctrl-C does, and must end
without a traceback. Commands of other programs (docker, kubectl, sbatch) belong to the tests of these.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from downpour.bench.__main__ import BENCHES
from downpour.deploy.cli import commands
from tests.support.paths import ROOT

pytestmark = [pytest.mark.commands, pytest.mark.timeout(1800)]

LIMIT_S, END_S = 20.0, 60.0
DOCUMENTS = [
    *sorted(ROOT.glob("README*.md")), ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))
]  # fmt: skip
OWN = ("downpour", "python", "tensorboard")
LINE = re.compile(r"^(?:\w?\$ )?((?:[A-Z_]+=\S+ )*(?:downpour|python|tensorboard) .*)$")
SPAN = re.compile(r"`(downpour [^`\n]+)`")
PLACEHOLDER = re.compile(r"…|\.\.\.|\[|\b[A-Z][A-Z_]+\b(?!=)|\b[A-Z]\b")
# What a machine may lack: a package that the page says to install, root, or a network for a dataset.
LACKING = re.compile(
    r"must be installed.*pip install|network namespaces must be creatable|the download failed|tensorboard: not found"
)
# What ends with a reason where the page says when the command is for: a run that was killed, a task of Slurm, and a run
# that shows what happens without clipping.
IN_A_SITUATION = re.compile(r"--resume must name a run|outside of Slurm|gradients must be finite")
README_SCRIPT = re.search(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)


def lines_of(text: str) -> Iterator[str]:
    """Yield the commands in the code blocks and spans of a page, without comments and the commands joined to them."""
    blocks = re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", text, re.S | re.M)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    for line in [*"\n".join(blocks).splitlines(), *re.findall(r"^ {4}(\S.*)$", rest, re.M)]:
        for part in line.split("  #")[0].split(" && "):
            if found := LINE.match(part.strip()):
                yield found.group(1).strip()
    yield from filter(is_complete, SPAN.findall(rest))


def is_complete(span: str) -> bool:
    """Return whether a span within a sentence is a whole command, and not its name or a part of it."""
    words = span.split()
    named = len(words) > (3 if words[1] == "bench" else 2)
    return named and not (words[1] == "run" and ".py" not in span) and not (words[1] == "worker" and len(words) < 4)


def shown() -> list[str]:
    """Return every command that a page or a help text shows, once."""
    found = {line: None for path in DOCUMENTS for line in lines_of(path.read_text())}
    helps = [f"downpour {name} --help" for name in commands()] + [f"downpour bench {name} --help" for name in BENCHES]
    named = [line for line in found if not PLACEHOLDER.search(line.replace("127.0.0.1", ""))]
    complete = [line for line in named if len(line.split()) > 1 and line.split()[1] in {*commands(), "-c", "--version"}]
    files = [line for line in named if line.startswith(("python ", "tensorboard ")) and line not in complete]
    return sorted({*complete, *files, *helps, "downpour --help", "downpour --version", "downpour help train"})


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with an environment of its own, and the files that the pages let their reader write."""
    given = os.environ.get("SHOWN_COMMANDS_TREE")
    folder = Path(given) if given else tmp_path_factory.mktemp("shown") / "clone"
    if not given:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True, timeout=120)
        subprocess.run(["sh", "deploy/setup.sh", "worker"], cwd=folder, check=True, timeout=1500)
    assert README_SCRIPT is not None
    (folder / "train.py").write_text(README_SCRIPT.group(1))
    for name in ("access", "certs"):
        attempt(folder, f"downpour certs {name}", LIMIT_S)
    for name in ("small.npz", "test.npz", "data.npz", "mine.npz"):
        write_samples(folder / name)
    return folder


def write_samples(path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (32, 32, 3) if path.name == "small.npz" else (28, 28)  # as the page on ResNet-50 says
    x, y = rng.random((64, *shape), np.float32), rng.integers(0, 10, 64)
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)


@pytest.fixture(scope="session")
def run_directory(tree: Path) -> Path:
    """A recorded run, `runs/latest`, of the command that the page on replay shows."""
    assert attempt(tree, "downpour train --workers 2 --epochs 1", 240.0)[0] == 0
    shutil.copy(tree / "runs" / "latest" / "model.keras", tree / "model.keras")
    return tree / "runs" / "latest"


@pytest.fixture(scope="session")
def address(tree: Path) -> Iterator[str]:
    """The address of a job that runs as long as the tests."""
    line = ["downpour", "ps", "--bind", "127.0.0.1:0", "--workers", "1", "--runs-dir", "other-runs"]
    with subprocess.Popen(line, cwd=tree, env=environment(tree), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield str(re.findall(r'"address": "([^"]+)"', server.stdout.readline())[0])
        server.kill()


def environment(tree: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOWNPOUR_", "PYTHON"))}
    own = {"PATH": f"{tree / '.venv' / 'bin'}:{os.environ['PATH']}", "COLUMNS": "80"}
    return {**kept, **own, "DOWNPOUR_DRAIN_TIMEOUT_S": "50"}  # the default suits a machine that does nothing else


def attempt(tree: Path, line: str, limit_s: float) -> tuple[int, str]:
    """Run a command, interrupt it at the limit, and return its exit status and its output."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {line}" if "=" not in line.split()[0] else f"exec env {line}"],
        cwd=tree, env=environment(tree), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
            output, _ = process.communicate(timeout=END_S)
            if line.startswith("python "):
                return 0, ""  # Python's own traceback of an interrupt
            ended = process.returncode in (0, 130) or IN_A_SITUATION.search(output)  # which may come at the same time
            assert ended, f"Ctrl-C must end it with 0 or 130: {process.returncode}\n{output}"
            return 0, output
        return process.returncode, output
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def test_the_pages_show_commands() -> None:
    assert len(shown()) > 60


@pytest.mark.parametrize("line", shown(), ids=lambda line: line[:90])  # a longer id would be a number, unknown to -k
def test_a_command_that_is_shown_works(line: str, tree: Path, run_directory: Path, address: str) -> None:
    line = re.sub(r"127\.0\.0\.1:\d{4,5}", address, line)
    if line.startswith("downpour certs "):
        shutil.rmtree(tree / line.split()[2], ignore_errors=True)  # the pages that use it have shown this command first
    status, output = attempt(tree, line, LIMIT_S)
    assert "Traceback (most recent call last)" not in output, output[-3000:]
    if status == 0 or (LACKING.search(output) and status in (1, 2, 127)):
        return
    assert status in (1, 2) and IN_A_SITUATION.search(output), f"{status}: {output[-3000:]}"
