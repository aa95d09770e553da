"""The registries of models and datasets: a new model is a row of `models.MODELS`, a new dataset of `datasets.DATASETS`.

It may import `protos` and `worker.python_source`. Keras is imported only where a model is built.
"""
