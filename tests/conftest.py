"""Hypothesis without deadlines: a timing is never a test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "downpour", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("downpour")
