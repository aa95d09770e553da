"""The wheel holds one package, and a script may have modules named like the folders of this repository."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SOURCES = ("LICENSE", "README.md", "pyproject.toml", "downpour", "ps", "worker", "protos", "deploy", "bench")
OWN = ("worker.py", "ps.py", "protos/__init__.py", "deploy/__init__.py", "bench/__init__.py")
SCRIPT = """
import keras
import numpy as np

import bench
import deploy
import protos
import ps
import worker
from downpour import DistributedOptimizer, size

assert [module.OWNER for module in (bench, deploy, protos, ps, worker)] == ["script"] * 5
x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse", jit_compile=False)
losses = model.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0).history["loss"]
assert losses[1] < losses[0]
print("TRAINED by", size(), "after", int(model.optimizer.iterations))
"""


def run(*line: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DOWNPOUR_", "PYTHON"))}
    done = subprocess.run(
        [str(part) for part in line], cwd=folder, env={**clean, "TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True,
        text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, because the build writes folders beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "--wheel-dir", folder / "dist", ".", folder=folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a virtual environment that contains only the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet", "--no-deps")
    run(*pip, "--no-index", wheel, folder=folder)
    return folder


def site_packages(environment: Path) -> Path:
    (found,) = environment.glob("lib/python*/site-packages")
    return found


@pytest.fixture(scope="module")
def complete(installed: Path) -> Path:
    """Add the dependencies of this environment to the one of the wheel."""
    packages = [path for path in site.getsitepackages() if Path(path).is_dir()]
    # Python does not read the .pth files of a folder that is named by one: an editable install there is not found.
    (site_packages(installed) / "dependencies.pth").write_text("\n".join(packages))
    return installed


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in OWN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('OWNER = "script"\n')
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def test_the_wheel_installs_one_package_with_types(installed: Path) -> None:
    names = {path.name for path in site_packages(installed).iterdir()}
    assert {name for name in names if not name.endswith((".dist-info", ".pth"))} == {"downpour"}
    package = site_packages(installed) / "downpour"
    assert (package / "py.typed").is_file() and not any(path.is_symlink() for path in package.iterdir())
    assert (package / "worker" / "data" / "mnist.npz").is_file()
    sources = {path.relative_to(ROOT) for side in SOURCES[4:] for path in (ROOT / side).rglob("*.py")}
    assert {path.relative_to(package) for path in package.rglob("*.py")} >= sources


def test_a_script_with_modules_of_the_same_names_trains_on_servers(complete: Path, project: Path) -> None:
    line = (complete / "bin" / "downpour", "run", "--workers=2", "--runs-dir=runs", "train.py")
    assert "TRAINED by 2 after 16" in run(*line, folder=project).stdout


def test_a_script_with_modules_of_the_same_names_trains_alone(complete: Path, project: Path) -> None:
    assert "TRAINED by 1 after 16" in run(complete / "bin" / "python", "train.py", folder=project).stdout
