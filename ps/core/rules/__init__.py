"""The registry of optimizers: update rules on one block of a flat vector, and their hyperparameters.

It is pure, and may import `protos`.
"""
