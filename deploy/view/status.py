"""`downpour status ADDRESS`: shows the progress of a running job, as text or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
from rich.console import Console

from downpour.deploy.config import StatusSettings
from downpour.deploy.runs import address_of, run_path
from downpour.deploy.view.http_status import serve
from downpour.deploy.view.rendering import as_dict, render, summary_table
from downpour.deploy.view.terminal import PlainScreen, open_screen
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import difference_in_tls, open_channel
from downpour.protos.parameter_server_pb2_grpc import CoordinatorStub
from downpour.protos.status_codes import error_of
from downpour.protos.system.json_text import json_text
from downpour.protos.system.progress import waiting_for


def status(settings: StatusSettings) -> int:
    """Show the progress of the job that `settings.address` names and return the exit status."""
    try:
        settings = settings.model_copy(update={"address": address_of(settings.address)})
    except LookupError as error:
        return _ended(settings, str(error))
    try:
        with suppress(KeyboardInterrupt):  # Ctrl-C is the way to leave --watch and --serve
            if settings.serve:
                return serve(settings, settings.serve)
            with open_channel(settings.address) as channel:
                _show(settings, CoordinatorStub(channel))
    except grpc.RpcError as failure:
        if difference := difference_in_tls(settings.address):
            print(f"downpour status: {difference}", file=sys.stderr)
            return 1
        print(f"downpour status: {error_of(failure, settings.address)}", file=sys.stderr)
        print("downpour status: ADDRESS must be the address that server 0 of a running job announced", file=sys.stderr)
        return 1
    return 0


def _ended(settings: StatusSettings, error: str) -> int:
    """Show the results of a run whose coordinator has ended, and return the exit status."""
    run_dir = Path(run_path(settings.address))
    path = run_dir / "summary.json"
    try:
        text = path.read_bytes()
    except OSError:
        print(f"downpour status: {error}", file=sys.stderr)
        return 2
    try:
        summary = json.loads(text)
        table = summary_table(summary, str(run_dir))
    except (ValueError, TypeError, AttributeError, RecursionError):  # no JSON, or JSON of another kind
        reason = f"{path} must be the summary of a run, as its coordinator writes it at the end"
        print(f"downpour status: {error}, and {reason}", file=sys.stderr)
        return 2
    if settings.json_:
        print(json_text(summary))
    else:
        Console().print(table)
    return 0


def _show(settings: StatusSettings, coordinator: CoordinatorStub) -> None:
    with waiting_for(f"an answer from {settings.address}"):
        first = coordinator.Status(pb.StatusRequest(), timeout=settings.timeout_s)
    if not settings.watch:
        _print(first, settings.json_)
        return
    if settings.json_:
        for progress in _follow(first, settings, coordinator):
            _print(progress, json_=True)
        return
    screen, progress = open_screen(verbose=True), first
    try:
        for progress in _follow(first, settings, coordinator):
            for note in progress.notes:
                screen.note(note)
            screen.show(progress)
    finally:
        screen.close()
        if not isinstance(screen, PlainScreen):
            _print(progress, json_=False)  # closing a live screen has removed what it showed


def _follow(first: pb.Progress, settings: StatusSettings, coordinator: CoordinatorStub) -> Iterator[pb.Progress]:
    """Yield the progress until the job ends; a stream that breaks after the end of training is not an error."""
    progress = first
    try:
        for progress in coordinator.Watch(pb.WatchRequest(every_s=settings.every_s)):
            yield progress
    except grpc.RpcError:
        if progress.phase not in ("draining", "finishing", "ended", "failed"):
            raise


def _print(progress: pb.Progress, json_: bool) -> None:
    if json_:
        print(json_text(as_dict(progress)), flush=True)
        return
    console = Console()
    names = " · ".join(filter(None, (progress.model, progress.dataset, progress.mode, progress.run)))
    console.print(names, style="bold", markup=False, highlight=False)
    console.print(render(progress, verbose=True))
