"""What needs no cluster: the range of workers, and the place of a server."""

from __future__ import annotations

import subprocess
import sys

import pytest

from downpour.deploy.launch.plan import ProcessSpec
from downpour.deploy.ray.node_process import StartRequest, placed
from downpour.deploy.ray.remote_process import workers_of
from downpour.deploy.ray.settings import RayTrainSettings, with_range
from downpour.protos.settings import parse

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.mark.parametrize("argv", [["--workers=2..8"], ["--workers", "2..8"]])
def test_a_range_sets_the_smallest_and_the_largest_number(argv: list[str]) -> None:
    settings = parse(RayTrainSettings, with_range([*argv, "--epochs=3"]), "prog")
    assert (settings.workers, settings.max_workers, settings.epochs) == (2, 8, 3)


def test_other_arguments_are_unchanged() -> None:
    argv = ["--workers=3", "--runs-dir=../runs", "--model", "a..b"]
    assert with_range(argv) == argv
    assert workers_of("5") == (5, 5)
    for wrong in ("0..3", "4..2", "a..b", "1..5000", ".."):
        with pytest.raises(ValueError, match="2..8"):
            workers_of(wrong)


def test_a_server_keeps_its_port_on_its_node_and_binds_another_elsewhere() -> None:
    spec = ProcessSpec("ps-0", "ps", 0, "downpour.ps", ("--bind=10.0.0.1:4711", "--resume", "--tls-dir=/driver"))
    request = StartRequest(spec, {}, {}, {"token": b"secret"}, "/runs", bound_on="a")
    assert placed(request, "a", "10.0.0.1", "/tls").args == ("--tls-dir=/tls", "--bind=10.0.0.1:4711", "--resume")
    assert placed(request, "b", "10.0.0.2", "/tls").args == ("--tls-dir=/tls", "--bind=10.0.0.2:0", "--resume")
    assert placed(request, "b", "fd00::2", "/tls").args[1] == "--bind=[fd00::2]:0"


def test_importing_the_package_loads_neither_ray_nor_tensorflow() -> None:
    code = "import sys, downpour, downpour.ray; assert not {'ray', 'tensorflow', 'grpc'} & set(sys.modules)"
    code = code.replace(", 'grpc'", "")
    subprocess.run([sys.executable, "-c", code], check=True)
