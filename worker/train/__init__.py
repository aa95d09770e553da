"""The loop of `downpour train`: leases, pushes and pulls, the watchdog.

It imports `worker.compute`, `worker.exchange`, `worker.catalog`, `ps.core` and never `worker.fit`.
"""
