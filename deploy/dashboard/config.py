"""Settings of `downpour dashboard` and `downpour report`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from downpour.protos.credentials import AccessSettings
from downpour.protos.settings import Settings

MOST_RECORDS = 200_000  # of one shard: a page of that size needs about 100 MB in the browser


class RecordSettings(Settings):
    """Which part of a long run is shown."""

    first: int = Field(
        0, ge=0, description=f"record of the trace to begin with; a page shows at most {MOST_RECORDS:,} of them"
    )


class DashboardSettings(RecordSettings, AccessSettings):
    """A page about a job, on this machine."""

    positional: ClassVar[tuple[str, ...]] = ("source",)

    source: str = Field(description="run directory, or HOST:PORT of the coordinator of a running job")
    port: int = Field(0, ge=0, lt=65536, description="port on 127.0.0.1 of the page; 0 takes a free one")


class ReportSettings(RecordSettings):
    """A finished run as one HTML file that needs no network."""

    positional: ClassVar[tuple[str, ...]] = ("run",)

    run: str = Field(description="run directory")
    to: str | None = Field(None, description="file to write (default: report.html in the run directory)")
