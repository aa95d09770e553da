"""`python -m downpour.deploy.dashboard`: the dashboard as a process of a launcher, which reads its printed address."""

from __future__ import annotations

import json
import os
import stat
import sys

from downpour.deploy.dashboard.config import DashboardSettings
from downpour.deploy.dashboard.dashboard import dashboard
from downpour.protos.settings import parse


def announcement(address: str) -> str:
    """Return the line that informs a launcher that the page can be opened; it contains the secret."""
    if stat.S_ISREG(os.fstat(1).st_mode):
        os.fchmod(1, 0o600)  # only this user can read the log to which the line is written
    return json.dumps({"event": "listening", "address": address, "pid": os.getpid()})


if __name__ == "__main__":
    sys.exit(dashboard(parse(DashboardSettings, sys.argv[1:], "downpour dashboard"), announcement))
