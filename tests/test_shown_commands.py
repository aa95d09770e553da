"""Every command that README, the documentation and a help text show is accepted by the command that it names."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from downpour.bench.__main__ import BENCHES
from downpour.bench.__main__ import main as bench
from downpour.bench.conformance.validate import ValidateSettings
from downpour.bench.replay.__main__ import ReplaySettings
from downpour.bench.simulation.simulate import SimulateSettings
from downpour.bench.world.seeded_job import SimulateJobSettings
from downpour.deploy.certs import CertsSettings, certs
from downpour.deploy.cli import commands
from downpour.deploy.config import EvaluateSettings, ExportCommandSettings, StatusSettings, TrainSettings
from downpour.deploy.dashboard.config import DashboardSettings, JobCommandSettings, ReportSettings, TopSettings
from downpour.deploy.doctor.doctor import DoctorSettings
from downpour.deploy.engines.settings import EngineTrainSettings
from downpour.deploy.playground.config import PlaygroundSettings
from downpour.deploy.ray.settings import RayTrainSettings, with_range
from downpour.deploy.run_commands import LogsSettings, RunsSettings
from downpour.deploy.scripts.script_settings import RunSettings
from downpour.protos.settings import Settings, parse, split_positional
from downpour.ps.config import ServerSettings
from downpour.worker.config import WorkerSettings
from tests.support.command_line import run
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("clean_environment")

DOCUMENTS = [*sorted(ROOT.glob("README*.md")), ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
KINDS: dict[str, type[Settings]] = {
    "train": TrainSettings, "ps": ServerSettings, "worker": WorkerSettings, "status": StatusSettings,
    "certs": CertsSettings, "evaluate": EvaluateSettings, "export": ExportCommandSettings, "replay": ReplaySettings,
    "dashboard": DashboardSettings, "report": ReportSettings, "job": JobCommandSettings, "top": TopSettings,
    "playground": PlaygroundSettings, "doctor": DoctorSettings,
    "runs": RunsSettings, "logs": LogsSettings, "simulate": SimulateSettings, "simulate-job": SimulateJobSettings,
    "validate": ValidateSettings, "slurm": EngineTrainSettings, "auto": EngineTrainSettings, "ray": RayTrainSettings,
}  # fmt: skip
COMMAND = re.compile(rf"(?:^|[\s`/])downpour ((?:{'|'.join(commands())})\b[^`#|]*)")
PLACEHOLDER = re.compile(
    r"…|\bRUN\b|\bNAME\b|\bPATH\b|\bDIR\b|\bRUN_DIR\b|\bADDRESS\b|\bFILE\b|module:function|\bVERSION\b|\.\.\.|\[|\$\("
)
# Files that a page tells its reader to write, or that the reader has.
OF_READER = ("small.npz", "test.npz", "mine.npz", "data.npz", "mymodel", "train.py", "model.keras")


def shown() -> Iterator[tuple[str, str]]:
    """Yield every line of a code block that is a command, and the name of the document."""
    for path in DOCUMENTS:
        text = path.read_text()
        blocks = re.findall(r"^ {4,}(.*)$", text, re.M)
        for block in re.findall(r"^```(?:sh|bash|console|text)?\n(.*?)^```", text, re.S | re.M):
            blocks += block.splitlines()
        for line in blocks:
            for command in COMMAND.findall(line.split("  #")[0]):
                quoted = command.count('"') % 2 == 1  # the end of a longer command
                yield path.name, command.strip().removesuffix('"') if quoted else command.strip()


SHOWN = sorted({(name, command) for name, command in shown() if not PLACEHOLDER.search(command)})


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys that the pages create with `downpour certs`."""
    folder = tmp_path_factory.mktemp("shown")
    for name in ("access", "certs"):
        assert certs(CertsSettings(folder=str(folder / name))) == 0
    return folder


def test_the_documentation_shows_commands() -> None:
    assert len(SHOWN) > 20


@pytest.mark.parametrize(("document", "command"), SHOWN, ids=[f"{name}: {command}" for name, command in SHOWN])
def test_a_command_of_the_documentation_is_accepted(
    document: str, command: str, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(keys)
    name, *arguments = shlex.split(command)
    if not arguments:
        return  # the name of a command
    if any(own in command for own in OF_READER) or "&&" in command or "--help" in command:
        return
    if name == "bench":
        if arguments:
            assert arguments[0] in BENCHES, f"{document}: {command}"
            named = {argument.partition("=")[0] for argument in arguments[1:] if argument.startswith("--")}
            assert all(flag in help_of(arguments[0]) for flag in named), f"{document}: {command}"
        return
    if name == "run":
        flags, script = split_positional(RunSettings, arguments)
        parse(RunSettings, flags, "downpour run")
        assert not script or (ROOT / script[0]).is_file(), f"{document} shows a script that does not exist: {command}"
        return
    if name == "ray":
        arguments = with_range(arguments)
    parse(KINDS[name], arguments, f"downpour {name}")


def help_of(name: str) -> str:
    done = run("bench", name, "--help")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_the_example_of_the_simulator_is_accepted() -> None:
    (example,) = re.findall(r"quadratic:\S*\d", SimulateSettings.model_fields["problem"].description or "")
    parse(SimulateSettings, [f"--problem={example}"], "downpour simulate")
    done = run("simulate", f"--problem={example}", "--updates=100")
    assert done.returncode == 0, done.stderr


def without(package: str) -> Callable[[str], object]:
    """Return a replacement of `find_spec` that does not find a package."""
    return lambda name: None if name == package else object()


@pytest.mark.parametrize(
    ("name", "package", "flags"),
    [("modes", "matplotlib", []), ("chaos", "psutil", []), ("kernels", "matplotlib", ["--quick", "--out", "x"])],
)
def test_a_benchmark_names_the_package_that_it_lacks(
    name: str, package: str, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", without(package))
    assert bench([name, *flags]) == 2
    assert (
        f"downpour bench {name}: {package} must be installed: {sys.executable} -m pip install -e '"
        in capsys.readouterr().err
    )
