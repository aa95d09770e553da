"""The user's views of a job: progress bar, `downpour status`, the HTTP status endpoint and the health check.

It may import `protos`, `deploy.config` and `deploy.runs`.
"""
