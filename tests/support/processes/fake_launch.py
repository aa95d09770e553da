"""A launcher over a fake cluster, as a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from tests.support.command_line import TIMEOUT_S
from tests.support.paths import ROOT


class Launched:
    """A launcher that runs over a fake cluster: its lines of output so far, and its processes."""

    def __init__(self, run_dir: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "tests.support.processes.fake_cluster", "launch", str(run_dir), *flags]
        self.run_dir = run_dir
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def until(self, text: str) -> None:
        with self._news:
            self._news.wait_for(lambda: self._ended or self._has(text), TIMEOUT_S)
            assert self._has(text), self.output

    def _has(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def code(self) -> int:
        code = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return code

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def processes(self) -> dict[int, str]:
        """Return the processes of the cluster without the launcher, as `{process id: command line}`."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(self.run_dir) in command and " launch " not in command:
                found[int(folder.name)] = command
        return found

    def number_of(self, name: str) -> int:
        role, number = name.split("-")
        wanted = " worker " if role == "worker" else " server "
        flag = f"--worker={number} " if role == "worker" else ""
        return next(pid for pid, command in self.processes().items() if wanted in command and flag in command)
