"""The local launcher: the plan of a cluster's processes, the processes themselves, and their supervision.

It may import `protos`, `ps.config`, `worker.config`, `deploy.config` and `deploy.view`.
"""
