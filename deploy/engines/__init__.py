"""Processes of a job that an engine such as Slurm places: each one finds its part of the plan in its environment.

It may import `protos`, `deploy.certs`, `deploy.config`, `deploy.view`, `deploy.launch` and `deploy.scripts`.
"""
