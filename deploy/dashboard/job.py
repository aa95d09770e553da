"""`downpour job ADDRESS ACTION`: operates a running job, as the buttons of the dashboard do."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from downpour.deploy.dashboard.config import JobCommandSettings, Refused
from downpour.deploy.dashboard.controls import OF_A_WORKER, SETTINGS, Controls, left_in_order
from downpour.deploy.runs import address_of
from downpour.protos.system.progress import waiting_for

EXIT_USAGE = 2  # no job is named


def job(settings: JobCommandSettings) -> int:
    """Execute one action, print its effect, and return the exit status."""
    try:
        request, address = request_of(settings), address_of(settings.address)
        with waiting_for(f"the job at {address}"), left_in_order():
            done = asyncio.run(Controls(address).act(request))
        print(done)
    except (Refused, LookupError) as refusal:
        print(f"downpour job: {refusal}", file=sys.stderr)
        return 1 if isinstance(refusal, Refused) else EXIT_USAGE
    return 0


def request_of(settings: JobCommandSettings) -> dict[str, Any]:
    """Return the request of a command line, as the buttons of the dashboard send it.

    Raises:
        Refused: The argument of the action is missing or malformed.
    """
    request: dict[str, Any] = {"action": settings.action, "seconds": settings.seconds, "factor": settings.factor}
    words = (settings.argument or "").split()
    if settings.action == "set":
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or name not in SETTINGS:
                raise Refused(
                    f"a setting must be {' or '.join(f'{each}=VALUE' for each in SETTINGS)}; received {word!r}"
                )
            request[name] = value
        return request
    if words and not (settings.action in OF_A_WORKER and len(words) == 1 and words[0].isdecimal()):
        what = "the number of a worker" if settings.action in OF_A_WORKER else "left out"
        raise Refused(f"what follows {settings.action} must be {what}; received {settings.argument!r}")
    return request | ({"worker": int(words[0])} if words else {})
