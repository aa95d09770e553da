"""`downpour bench chaos`: kills processes of running jobs and checks that every update was applied exactly once.

It may import `protos`, `ps.storage`, `worker.exchange`, `worker.fit.optimizer`, `worker.script`, `deploy.config`,
`deploy.launch`, `deploy.view` and `bench`.
"""
