"""Which kernels of a compiled gradient may give other bits the next time."""

from __future__ import annotations

from typing import Any

# Stateful random numbers, and calls out of the graph.
STATEFUL = {
    "RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "ParameterizedTruncatedNormal",
    "RandomGamma", "RandomPoissonV2", "RandomShuffle", "Multinomial", "StatefulUniform", "StatefulStandardNormalV2",
    "StatefulTruncatedNormal", "RngReadAndSkip", "PyFunc", "EagerPyFunc", "PyFuncStateless",
}  # fmt: skip
# Sums in the order in which threads come: see TensorFlow's `enable_op_determinism`.
UNORDERED = {
    "ScatterNd", "ScatterAdd", "TensorScatterAdd", "ResourceScatterAdd", "UnsortedSegmentSum", "SegmentSum",
    "SparseSegmentSumGrad", "SparseTensorDenseMatMul", "CropAndResizeGradImage", "CropAndResizeGradBoxes",
}  # fmt: skip


def suspects(function: Any) -> list[str]:
    """Operations in the graph of a concrete function: random and foreign ones, or else sums without an order."""
    graph = function.graph.as_graph_def()
    found = {node.op for node in graph.node} | {node.op for each in graph.library.function for node in each.node_def}
    return sorted(found & STATEFUL) or sorted(found & UNORDERED)
