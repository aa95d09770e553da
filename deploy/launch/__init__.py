"""The local launcher: a plan of processes, the processes, and how they end.

It imports `downpour.protos`, `ps.config`, `worker.config`, `deploy.config` and `deploy.view`.
"""
