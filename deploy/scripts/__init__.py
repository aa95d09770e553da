"""Clusters that train a user's Keras script: `downpour run`, `TF_CONFIG` and `LocalCluster`.

It may import `deploy.launch`, `deploy.view`, `deploy.config`, `deploy.runs`, `downpour.protos` and the settings of `ps`
and `worker`.
"""
