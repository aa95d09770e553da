"""Clusters around a user's Keras script: `downpour run`, `TF_CONFIG` and `LocalCluster`.

It imports `deploy.launch` and what that imports.
"""
