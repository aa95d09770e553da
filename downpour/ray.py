"""Training on a Ray cluster: `downpour.ray.Cluster(workers=(2, 8), shards=2).fit(model, x, y)`.

It needs the package `ray`, which the extra `ray` installs. Importing it loads neither Ray nor TensorFlow.
"""

from __future__ import annotations

from downpour.deploy.ray.cluster import Cluster

__all__ = ["Cluster"]
