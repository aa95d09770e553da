"""Creates the coordinator of a job together with the work that the settings ask for.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable

from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.fit.fit_work import FitWork
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.training_work import TrainingWork


def new_coordinator(settings: ServerSettings, name: str, new_session: Callable[[], int]) -> Coordinator:
    """Return the coordinator of a new job, for a script's `fit` or for built-in training as the settings say.

    Args:
        settings: The settings of the job.
        name: The name of the job.
        new_session: A function that returns an unguessable number for each new session.

    Raises:
        Unsupported: The mode cannot be used with a script.
    """
    job = Job(settings, name, new_session)
    return Coordinator(job, FitWork(job) if settings.script else TrainingWork(job))
