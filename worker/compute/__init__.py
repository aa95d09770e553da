"""A Keras model as functions of one flat vector: gradients, local steps and evaluation.

It may import `protos` and `worker.catalog`.
"""
