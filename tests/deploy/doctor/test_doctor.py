"""What the doctor finds is judged, and a real examination of this machine finds shared memory that works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from downpour.deploy.doctor import doctor as program
from downpour.deploy.doctor import facts, findings
from downpour.deploy.doctor.findings import Finding
from tests.support.command_line import run

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.mark.parametrize(
    ("version", "bounds", "within"),
    [
        ("2.21.0", "<2.22,>=2.20", True),
        ("2.9", ">=2.20", False),
        ("2.22.0", "<2.22", False),
        ("14", ">=14", True),
        ("14.0.0rc1", ">=14", True),
        ("3.13.2", "<3.14,>=3.11", True),
        ("1", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, bounds: str, within: bool) -> None:
    assert findings.satisfies(version, bounds) is within


REQUIREMENTS = [
    "numpy>=1.26",
    "rich>=14",
    'tensorflow<2.22,>=2.20; extra == "worker"',
    'downpour-ps[certs]; extra == "worker"',
    'pytest>=9; extra == "dev"',
]


def test_a_package_that_is_needed_is_an_error_and_one_of_an_extra_a_warning_that_says_what_lacks() -> None:
    found = list(findings.of_packages(REQUIREMENTS, {"numpy": "1.20"}))
    assert [(each.subject, each.level) for each in found] == [
        ("numpy", "error"), ("rich", "error"), ("tensorflow (worker)", "warning"),
    ]  # fmt: skip
    assert found[0].found == "1.20, and downpour needs >=1.26"
    assert "no worker can train" in found[2].found and "[worker]'" in found[2].advice


def test_whatever_is_not_ok_says_what_to_do() -> None:
    bad = [
        findings.of_python("3.9.1", ">=3.11"),
        findings.of_cores(1),
        findings.of_memory(None),
        findings.of_memory(1000),
        findings.of_gpus(["0"], ["12, python, 3 MiB"]),
        findings.of_memfd(False),
        findings.of_shared_memory("denied"),
        findings.of_loopback("denied"),
        findings.of_clock(0.0, 1e9),
        findings.of_descriptors(64),
        findings.of_transport(False, "denied", "denied"),
    ]
    assert all(each.level != "ok" and each.advice.endswith(".") for each in bad)
    assert {each.subject for each in bad if each.level == "error"} == {"Python", "loopback", "--transport auto"}


@pytest.mark.parametrize(
    ("memfd", "failure", "chosen"), [(True, "", "shm"), (True, "denied", "tcp"), (False, "there is no memfd", "tcp")]
)
def test_auto_chooses_the_first_transport_that_works_and_says_why(memfd: bool, failure: str, chosen: str) -> None:
    found = findings.of_transport(memfd, failure, "")
    assert found.found.startswith(chosen) and found.level == "ok" and failure in found.found


def test_the_exit_status_is_that_of_the_errors(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for level, status in (("ok", 0), ("warning", 0), ("error", 1)):
        monkeypatch.setattr(program, "examine", lambda level=level: iter([Finding("this", level, "x", "Do that.")]))
        assert program.doctor(program.DoctorSettings()) == status
        assert "Do that." in capfd.readouterr().out


def test_a_control_group_limits_the_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 8 kB\n")
    assert facts.available_bytes(tmp_path / "meminfo", tmp_path) == 8192
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert facts.available_bytes(tmp_path / "meminfo", tmp_path) == 4000
    assert facts.available_bytes(tmp_path / "missing", tmp_path) is None


def test_a_child_that_cannot_share_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def broken(command: list[str], **options: object) -> object:
        return start([sys.executable, "-c", "import sys; sys.exit('no socket for you')"], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", broken)
    assert facts.shared_memory_failure() == "no socket for you"


def test_this_machine_is_examined() -> None:
    done = run("doctor", "--json")
    report = json.loads(done.stdout)
    found = {each["subject"]: each for each in report["findings"]}
    assert done.returncode == (0 if report["ok"] else 1) and done.stderr == ""
    assert {"Python", "numpy", "grpcio", "protobuf", "cores", "memory", "GPUs", "loopback", "clock"} <= set(found)
    assert found["shared memory"]["level"] == "ok", found["shared memory"]
    assert found["--transport auto"]["found"].startswith("shm")


@pytest.mark.parametrize("columns", [60, 80])
def test_lines_are_broken_between_words_on_a_narrow_terminal(columns: int) -> None:
    text = "a statement about the machine that has many words and takes several lines"
    found = [Finding("--transport auto", "warning", text, text), Finding("cores", "ok", "2")]
    shown = list(program.lines(found, columns))
    assert all(len(line) <= columns for line in shown)
    words = [word for line in shown for word in line.split()]
    assert words[: 3 + len(text.split())] == ["warning", "--transport", "auto", *text.split()]
    assert "ok       cores             2" in shown
