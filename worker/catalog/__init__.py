"""The registries of models and datasets.

Keras is imported only where a model is built; it imports `downpour.protos` and itself.
"""
