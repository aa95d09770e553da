"""Training loops of the user's own: `training` for Keras's optimizers, `connect` for arrays of any framework.

It imports `worker.exchange`, `worker.fit`, `worker.script`, `ps.core` and `protos`; `numpy_client` loads no TensorFlow.
"""
