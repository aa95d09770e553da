"""The TOML file of settings, `--config job.toml`: its keys and the types of its values.

It may import nothing of the project; `protos.settings` calls it.
"""
