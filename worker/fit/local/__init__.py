"""What a script's worker does between two exchanges: sums of gradients, and local steps of its own optimizer.

It may import `worker.plan`, `worker.fit.optimizer`, `worker.fit.cluster` and what these import.
"""
