"""Training loops of the user's own: `connect`, a client with NumPy arrays for any framework.

It imports `worker.exchange`, `worker.script`, `ps.core` and `protos`; importing it loads neither TensorFlow nor Keras.
"""
