"""Processes of a job that an engine such as Slurm places: each one finds its part of the plan in its environment.

It may import `deploy.launch`, `deploy.scripts`, `deploy.view`, `deploy.config`, `deploy.certs`, `downpour.protos` and
the settings of `ps` and `worker`.
"""
