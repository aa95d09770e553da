"""The loop of `downpour train`: leases, pushes and pulls, the watchdog.

It imports `worker.compute`, `worker.exchange`, `worker.catalog` and never `worker.fit`.
"""
