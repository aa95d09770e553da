"""What a script's worker does between two exchanges: sums of gradients, and local steps of its own optimizer.

It may import `protos`, `worker.compute`, `worker.exchange`, `worker.plan`, `worker.fit.cluster` and
`worker.fit.optimizer`.
"""
