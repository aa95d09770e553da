"""What people and monitoring systems see of a job: summary, TensorBoard, Prometheus and the log.

It imports `ps.control_plane` and what that imports.
"""
