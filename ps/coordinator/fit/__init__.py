"""A script's `fit` as the work of a job: its calls, their barriers, the leases of their samples, and who is awaited.

It imports `ps.coordinator`, and what that may import; `FitWork` implements `ps.coordinator.work.Work`. It is pure: it
reads no clock, no files and no network.
"""
