"""What onnxruntime makes of a file: its operators after fusing."""

from collections import Counter
from pathlib import Path


def fused_operators(path: Path) -> Counter[str]:
    """How many there are of each kind, with the options that a session has by default."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_name("optimized.onnx"))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
