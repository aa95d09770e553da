"""The connections to the servers: the session, pulls and pushes over each transport, and the handling of lost servers.

It imports `downpour.protos`, and never TensorFlow.
"""
