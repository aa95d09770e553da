"""The registries of models and datasets: a new model is a row of `models.MODELS`, a new dataset of `datasets.DATASETS`.

It imports `downpour.protos` and itself. Keras is imported only where a model is built.
"""
