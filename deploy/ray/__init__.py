"""Jobs on a Ray cluster: `downpour ray`, and the class `Cluster` for programs, notebooks and Ray Tune.

It may import `deploy.launch`, `deploy.scripts`, `deploy.view`, `deploy.config`, `deploy.certs`, `downpour.protos` and
the settings of `ps` and `worker`. The package `ray` is imported only when a job starts.
"""
