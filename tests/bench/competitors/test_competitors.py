"""The processes of competitors: their environment, their failures and their end."""

import fcntl
import sys

import pytest

from downpour.bench.competitors.competitors import CompetitorError, bounded, environment, last_line


def test_settings_from_outside_do_not_reach_a_competitor():
    found = environment({"DOWNPOUR_MODE": "bsp", "TF_CONFIG": "{}", "OMP_NUM_THREADS": "9", "PATH": "/bin"})
    assert {"DOWNPOUR_MODE", "TF_CONFIG", "OMP_NUM_THREADS"}.isdisjoint(found)
    assert (found["PATH"], found["CUDA_VISIBLE_DEVICES"]) == ("/bin", "-1")


def _python(code):
    return [sys.executable, "-c", code]


def test_the_failure_of_a_competitor_is_reported():
    with pytest.raises(CompetitorError, match=r"(?s)status 0. Received: 3.*went wrong"):
        bounded(_python("import sys; print('went wrong', file=sys.stderr); sys.exit(3)"), 60.0)
    with pytest.raises(CompetitorError, match="must print a JSON object on its last line"):
        last_line(_python("print('no object')"), 60.0)
    assert last_line(_python("print('log'); print('{\"samples\": 1}')"), 60.0) == {"samples": 1}


def test_a_competitor_that_hangs_is_ended_with_its_children(tmp_path):
    held = tmp_path / "held"
    holder = (
        "import fcntl, signal; file = open('held', 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
        "file.write('yes'); file.flush(); signal.pause()"
    )
    parent = (
        f"import os, subprocess, sys; os.chdir({str(tmp_path)!r}); "
        f"subprocess.run([sys.executable, '-I', '-S', '-c', {holder!r}])"
    )
    with pytest.raises(CompetitorError, match="must end within 2 s"):
        bounded(_python(parent), 2.0)
    assert held.read_text() == "yes"
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # returns once the holder has ended
