"""The connections to the servers: the session, pulls and pushes over each transport, and the handling of lost servers.

It may import `protos`. It never imports TensorFlow.
"""
