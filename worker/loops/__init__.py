"""The user's own training loops: `training` for Keras's optimizers, `connect` for the arrays of any framework.

It may import `protos`, `ps.core.rules`, `worker.exchange`, `worker.script`, `worker.fit.cluster` and
`worker.fit.optimizer`. Only `training` and `loop_gradient_op`, which it uses, load TensorFlow.
"""
