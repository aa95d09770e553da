"""Monitoring of a job: the summary, TensorBoard, Prometheus and the log.

This package may import `ps.control_plane` and what that may import.
"""
