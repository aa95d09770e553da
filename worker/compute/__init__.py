"""A Keras model as functions of one flat vector: gradients, local steps and evaluation.

It imports `worker.catalog` and `downpour.protos`.
"""
