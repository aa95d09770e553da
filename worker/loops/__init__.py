"""The user's own training loops: `training` for Keras's optimizers, `connect` for the arrays of any framework.

It may import `worker.exchange`, `worker.fit`, `worker.script`, `ps.core` and `protos`; only `training` loads
TensorFlow.
"""
