"""What ONNX Runtime says of a graph that it does not take, as one line with the remedy."""

import re

# its own words, onnxruntime/core/graph/model_load_utils.h, model.cc and session_state.cc
_NEWER_OPSET = re.compile(r"Opset (\d+) is under development.* till opset (\d+)", re.DOTALL)
_NEWER_FORMAT = re.compile(r"model IR version: (\d+), max supported IR version: (\d+)")
_NO_KERNEL = re.compile(r"Could not find an implementation for (\w+)\((\d+)\)")


def refusal(graph: str, error: Exception, version: str) -> str:
    """Why ONNX Runtime of this version gives no session of a graph."""
    text = " ".join(str(error).split())
    if match := _NEWER_OPSET.search(text):
        why = f"it is of opset {match[1]}, and this one knows opsets up to {match[2]}"
        remedy = f"export the model again with opset {match[2]}"
    elif match := _NEWER_FORMAT.search(text):
        why = f"it is of ONNX's format {match[1]}, and this one reads formats up to {match[2]}"
        remedy = "export the model again with an older onnx"
    elif match := _NO_KERNEL.search(text):
        why = f"this one has no {match[1]} of opset {match[2]} for the graph's types"
        remedy = "export the model again with a lower opset"
    else:
        return f"{graph}: ONNX Runtime {version} refuses the graph: {text}"
    return (
        f"{graph}: ONNX Runtime {version} refuses the graph: {why}; upgrade it (pip install "
        f"--upgrade onnxruntime, or onnxruntime-gpu), or {remedy}"
    )
