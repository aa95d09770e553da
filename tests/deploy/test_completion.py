"""The scripts of `downpour completion` know every command and its flags."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from downpour.bench.__main__ import BENCHES
from downpour.deploy.cli import commands
from downpour.deploy.completion import ONE_OF_MANY, SETTINGS, CompletionSettings, completion
from downpour.protos.settings import parse

COMPLETE = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={at} COMP_LINE="{line}" COMP_POINT={end}
$(complete -p downpour | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def test_every_command_is_completed() -> None:
    assert {*SETTINGS, *ONE_OF_MANY} == {*commands(), "help"}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_names_commands_and_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert completion(parse(CompletionSettings, [shell], "downpour completion")) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("train", "--push-every", "simulate-job", "staleness"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["downpour", "tr"], {"train"}),
        (["downpour", "train", "--push"], {"--push-every"}),
        (["downpour", "train", "--log-format", ""], {"text", "json"}),
        (["downpour", "bench", "stal"], {"staleness"}),
        (["downpour", "completion", "z"], {"zsh"}),
    ],
)
def test_bash_completes_what_is_typed(
    words: list[str], expected: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    completion(parse(CompletionSettings, ["bash"], "downpour completion"))
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    line = " ".join(words)
    quoted = " ".join(f"'{word}'" for word in words)
    program = COMPLETE.format(script=script, words=quoted, at=len(words) - 1, line=line, end=len(line))
    bash = shutil.which("bash") or "bash"
    done = subprocess.run([bash, "-c", program], capture_output=True, text=True, timeout=60)
    assert set(done.stdout.split()) == expected and len(BENCHES) > 10, done.stderr
