"""The dashboard: a page that shows a job while it runs, or replays one that has ended from its trace.

It may import `protos`, `ps.core`, `ps.trace`, `deploy.runs` and `deploy.view`. The page itself is in `page/`.
"""
