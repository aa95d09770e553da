"""Clusters that train a user's Keras script: `downpour run`, `TF_CONFIG` and `LocalCluster`.

It may import `protos`, `ps.config`, `ps.config_checks`, `worker.config`, `worker.fit.process`, `worker.python_source`,
`deploy.config`, `deploy.runs`, `deploy.view` and `deploy.launch`.
"""
