"""Entry point of `python -m downpour.ps`: one parameter-server process."""

from __future__ import annotations

import sys

from downpour.protos.settings import parse
from downpour.ps.config import ServerSettings
from downpour.ps.server import run_server


def main(argv: list[str]) -> int:
    """Run a server with command-line flags, and return its exit code."""
    return run_server(parse(ServerSettings, argv, "downpour ps"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
