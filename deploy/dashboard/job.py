"""`downpour job ADDRESS ACTION`: operates a running job, as the buttons of the dashboard do."""

from __future__ import annotations

import asyncio
import sys

from downpour.deploy.dashboard.config import JobCommandSettings
from downpour.deploy.dashboard.controls import Controls, Refused
from downpour.deploy.runs import address_of


def job(settings: JobCommandSettings) -> int:
    """Execute one action, print its effect, and return the exit status."""
    request = {"action": settings.action, "worker": settings.worker, "seconds": settings.seconds}
    try:
        print(asyncio.run(Controls(address_of(settings.address)).act(request)))
    except (Refused, LookupError) as refusal:
        print(f"downpour job: {refusal}", file=sys.stderr)
        return 1
    return 0
