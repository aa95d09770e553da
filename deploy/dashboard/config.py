"""Settings of `downpour dashboard` and `downpour report`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from downpour.deploy.runs import RunPath
from downpour.protos.credentials import AccessSettings
from downpour.protos.settings import Settings

MOST_RECORDS = 200_000  # limit for one shard: a page of that size needs about 100 MB in the browser


class Refused(ValueError):
    """An action is not possible at present, or not permitted on this machine; the message gives the reason."""


class RecordSettings(Settings):
    """The setting that selects the part of a long run that is shown."""

    first: int = Field(
        0, ge=0, description=f"Record of the trace to begin with; a page shows at most {MOST_RECORDS:,} of them."
    )


class DashboardSettings(RecordSettings, AccessSettings):
    """Serve a page that shows a job, on this machine."""

    positional: ClassVar[tuple[str, ...]] = ("source",)

    source: RunPath = Field(description="Run directory such as latest, or HOST:PORT of a running job's coordinator.")
    until_over: bool = Field(False, description="End when the job is over.")
    port: int = Field(0, ge=0, lt=65536, description="Port of the page; with 0 the system chooses it.")
    listen: Literal["127.0.0.1", "0.0.0.0"] = Field(
        "127.0.0.1",
        description="Address to listen on; 0.0.0.0 for a container whose port is published on 127.0.0.1 of its host.",
    )


class TopSettings(AccessSettings):
    """Show a job in the terminal, and operate it with keys."""

    positional: ClassVar[tuple[str, ...]] = ("source",)

    source: RunPath = Field(description="HOST:PORT of a running job's coordinator, or a run directory such as latest.")
    every_s: float = Field(0.5, ge=0.1, le=60, description="Seconds between two updates.")


class ReportSettings(RecordSettings):
    """Write a finished run as one HTML file that needs no network."""

    positional: ClassVar[tuple[str, ...]] = ("run",)

    run: RunPath = Field(description="Run directory, such as latest.")
    to: str | None = Field(None, description="File to write (default: report.html in the run directory).")


class JobCommandSettings(AccessSettings):
    """Control a running job: pause, resume or drain it, or kill or stall one of its workers."""

    positional: ClassVar[tuple[str, ...]] = ("address", "action", "argument")

    address: str = Field(description="HOST:PORT of the job's coordinator, which is server 0, or a run such as latest.")
    action: Literal["pause", "resume", "drain", "set", "checkpoint", "add-worker", "kill", "stall", "slow"] = Field(
        description="One of pause, resume, drain, set (settings), checkpoint, add-worker, kill (a worker of this "
        "machine), stall (suspend its process for a while) and slow (let its process run a part of the time)."
    )
    argument: str | None = Field(
        None,
        description="Number of the worker to kill, stall or slow; or, to set: mode=MODE, compensation=POLICY, lr=RATE.",
    )
    seconds: float = Field(3.0, gt=0, le=60, description="Duration of the stall or of the slowness in seconds.")
    factor: float = Field(3.0, gt=1, le=20, description="Factor by which a worker is slowed down.")
