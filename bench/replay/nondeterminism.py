"""Finds the kernels of a compiled gradient that may give different bits in every call."""

from __future__ import annotations

from typing import Any

# Stateful random numbers, and calls of Python functions.
STATEFUL = {
    "RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "ParameterizedTruncatedNormal",
    "RandomGamma", "RandomPoissonV2", "RandomShuffle", "Multinomial", "StatefulUniform", "StatefulStandardNormalV2",
    "StatefulTruncatedNormal", "RngReadAndSkip", "PyFunc", "EagerPyFunc", "PyFuncStateless",
}  # fmt: skip
# Sums whose order depends on the threads; see TensorFlow's `enable_op_determinism`.
UNORDERED = {
    "ScatterNd", "ScatterAdd", "TensorScatterAdd", "ResourceScatterAdd", "UnsortedSegmentSum", "SegmentSum",
    "SparseSegmentSumGrad", "SparseTensorDenseMatMul", "CropAndResizeGradImage", "CropAndResizeGradBoxes",
}  # fmt: skip


def suspects(function: Any) -> list[str]:
    """Return the stateful operations in the graph of a concrete function, or if there are none, its unordered sums."""
    graph = function.graph.as_graph_def()
    found = {node.op for node in graph.node} | {node.op for each in graph.library.function for node in each.node_def}
    return sorted(found & STATEFUL) or sorted(found & UNORDERED)
