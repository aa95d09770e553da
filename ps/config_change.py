"""Changes of a running job's settings: mode, compensation of staleness and learning rate.

A change takes effect at a cut, so that all shards make it after the same pushes. The changes of a run are listed in
its file `changes.json`; the call log of every shard contains where each took effect.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from downpour.protos.errors import InvalidRequest
from downpour.protos.sentences.sentence import Sentence, joined, sentence
from downpour.protos.settings import flag
from downpour.ps.config import ServerSettings
from downpour.ps.core.consistency import consistency_of

CHANGEABLE = ("mode", "staleness_policy", "learning_rate")
NAMES = {name: sentence(f"name_{name}") for name in CHANGEABLE}  # for messages


class Change(BaseModel):
    """A change of a job's settings.

    Attributes:
        number: The number of the change in its run, from 1.
        before: The earlier values of the settings that change.
        after: Their new values.
        version: The version of shard 0 at which the change took effect; None before that.
        elapsed_s: The time since training began, in seconds; None before that.
    """

    model_config = ConfigDict(frozen=True)

    number: int = Field(ge=1)
    before: dict[str, str | float]
    after: dict[str, str | float]
    version: int | None = None
    elapsed_s: float | None = None

    def effective(self, version: int, elapsed_s: float) -> Self:
        """Return the change with the point at which it took effect."""
        return self.model_copy(update={"version": version, "elapsed_s": elapsed_s})

    @property
    def text(self) -> str:
        """A description such as `mode ssp:3 (was async)`."""
        return joined(
            (
                sentence("setting", name=NAMES[name], value=str(value), before=str(self.before[name]))
                for name, value in self.after.items()
            ),
            "several_settings",
        )


def apply_change(settings: ServerSettings, change: Change) -> ServerSettings:
    """Return the settings after a change.

    Raises:
        InvalidRequest: These settings do not fit together.
    """
    try:
        return ServerSettings.model_validate({**settings.model_dump(), **change.after})
    except ValidationError as error:
        texts = [(str(each["loc"][0]) if each["loc"] else "", _text(each)) for each in error.errors()]
        problems = (
            text if text.startswith("--") or not name else sentence("flag", flag=flag(name), problem=text)
            for name, text in texts
        )
        raise InvalidRequest(joined(problems, "several_problems")) from error


def continued(settings: ServerSettings, changes: Iterable[Change]) -> ServerSettings:
    """Return the settings with which a run continues, given those that it was started with and its changes.

    A setting that was given another value for the continuation keeps that value.
    """
    for change in changes:
        values = _values(settings)
        after = {name: value for name, value in change.after.items() if values[name] == change.before[name]}
        if after:
            settings = apply_change(settings, change.model_copy(update={"after": after}))
    return settings


def original(settings: ServerSettings, changes: Iterable[Change]) -> ServerSettings:
    """Return the settings that a run was started with, given the present ones and its changes."""
    first: dict[str, Any] = {}
    for change in changes:
        first = {**change.before, **first}
    return settings.model_copy(update=first)


def new_change(settings: ServerSettings, wanted: Mapping[str, str | float], number: int) -> Change | None:
    """Return the change that a request describes; None if all settings have these values already.

    Args:
        settings: The present settings of the job.
        wanted: The wanted values of some of the settings `CHANGEABLE`.
        number: The number of the change.

    Raises:
        InvalidRequest: The change is not possible in this job.
    """
    if not wanted:
        raise InvalidRequest(sentence("change_empty"))
    values = _values(settings)
    after = {name: value for name, value in wanted.items() if values[name] != value}
    change = Change(number=number, before={name: values[name] for name in after}, after=after)
    changed = apply_change(settings, change)
    if refusal := _refusal(settings, changed):
        raise InvalidRequest(refusal)
    return change if after else None


def _text(problem: ErrorDetails) -> str:
    raised = problem.get("ctx", {}).get("error")
    if isinstance(raised, ValueError) and raised.args and isinstance(raised.args[0], Sentence):
        return raised.args[0]
    return problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


def _values(settings: ServerSettings) -> dict[str, str | float]:
    return {**{name: getattr(settings, name) for name in CHANGEABLE}, "learning_rate": settings.effective_learning_rate}


def _refusal(settings: ServerSettings, changed: ServerSettings) -> str:
    """Return why a job cannot change its settings while it runs; empty if it can."""
    for each in (settings, changed):
        payload = consistency_of(each.mode).payload
        if payload != "gradient" and (settings.mode, settings.learning_rate) != (changed.mode, changed.learning_rate):
            return sentence("workers_keep_weights", mode=each.mode, payload=sentence(f"payload_{payload}"))
    if settings.effective_learning_rate == changed.effective_learning_rate:
        return ""
    if settings.script:
        return sentence("rate_of_script")
    if max(settings.push_every, settings.fetch_every or 1) > 1:
        return sentence("rate_of_local_steps", push_every=str(settings.push_every))
    return ""
