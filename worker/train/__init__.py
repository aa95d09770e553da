"""The loop of `downpour train`: leases, pushes and pulls, the watchdog.

It may import `protos`, `ps.core.rules`, `worker.catalog`, `worker.compute`, `worker.config`, `worker.exchange` and
`worker.plan`. It never imports `worker.fit`.
"""
