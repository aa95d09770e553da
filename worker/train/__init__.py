"""The loop of `downpour train`: leases, pushes and pulls, the watchdog.

It imports `worker.compute`, `worker.exchange`, `worker.plan`, `worker.catalog`, `ps.core` and never `worker.fit`.
"""
