"""The local launcher: the plan of a cluster's processes, the processes themselves, and their supervision.

It may import `deploy.view`, `deploy.config`, `downpour.protos` and the settings of `ps` and `worker`.
"""
