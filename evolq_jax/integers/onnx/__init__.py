"""ONNX: the traced network as a graph with quantized products, and what runs and checks such files."""
