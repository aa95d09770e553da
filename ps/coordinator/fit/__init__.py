"""A script's `fit` as the work of a job: its calls, their leases, and the workers that a barrier waits for.

`FitWork` implements `ps.coordinator.work.Work`. This package may import `ps.coordinator` and what that may import. It
is pure: it reads no clock, no files and no network.
"""
