"""The dashboard: a page that shows a job while it runs, or replays one that has ended from its trace.

It imports `downpour.protos`, `ps.config`, `ps.core`, `ps.trace`, `deploy.config` and `deploy.view`.
The page itself is in `page/`.
"""
