"""What a person sees of a job: status, progress bar, HTTP status page and health check.

It imports `downpour.protos` and `deploy.config`.
"""
