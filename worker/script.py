"""Whether this process runs a script that `downpour run` has started, and as which worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.member import Member

member: Member | None = None  # set by worker.run before the script begins; None in any other process
