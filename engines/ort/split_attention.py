"""Let ONNX Runtime's CPU provider use every core in single-head attention.

Its Attention kernel shares work out by batch and head, so the VQ-VAE's attention (one head over
1024 or 4096 positions) runs on one core at batch 1. Queries do not depend on each other: reshaped
into groups, with keys and values shared (grouped-query attention, which ONNX's Attention knows),
the same numbers come out in about half the time on two cores (ONNX Runtime 1.32).
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

GROUPS = 16  # as many cores can be kept busy; more groups cost a little where there are few cores


def split_attention(model: onnx.ModelProto) -> int:
    """Rewrite, in place, each Attention whose queries have one head and a static length.

    Returns:
        How many nodes were rewritten.
    """
    graph = model.graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    nodes: list[onnx.NodeProto] = []
    rewritten = 0
    for node in graph.node:
        queries = list(shapes.get(node.input[0], ())) if node.op_type == "Attention" else []
        plain = len(node.input) == 3 and len(node.output) == 1  # no mask, no cache
        if not plain or len(queries) != 4 or queries[1].dim_value != 1:
            nodes.append(node)
            continue
        length, width = queries[2].dim_value, queries[3].dim_value
        if not length or length % GROUPS or not width:
            nodes.append(node)
            continue
        source, result = node.input[0], node.output[0]
        split, joined = f"{result}/split", f"{result}/joined"
        for name, shape in (
            (split, [0, GROUPS, length // GROUPS, width]),  # 0 keeps the batch
            (joined, [0, 1, length, width]),
        ):
            graph.initializer.append(
                numpy_helper.from_array(np.array(shape, np.int64), f"{name}/shape")
            )
        node.input[0], node.output[0] = split, joined
        nodes += [
            helper.make_node("Reshape", [source, f"{split}/shape"], [split]),
            node,
            helper.make_node("Reshape", [joined, f"{joined}/shape"], [result]),
        ]
        rewritten += 1
    del graph.node[:]
    graph.node.extend(nodes)
    return rewritten
