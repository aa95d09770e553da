"""The command `downpour doctor`: it examines whether this machine can train, and on which devices.

It may import `protos` and `deploy.launch`. `findings.py` is pure: it judges facts. `facts.py` collects them, and loads
neither TensorFlow nor Keras.
"""
