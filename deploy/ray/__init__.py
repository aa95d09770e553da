"""Jobs on a Ray cluster: `downpour ray`, and the class `Cluster` for programs, notebooks and Ray Tune.

It may import `protos`, `deploy.certs`, `deploy.config`, `deploy.view`, `deploy.launch` and `deploy.scripts`. The
package `ray` is imported only when a job starts.
"""
