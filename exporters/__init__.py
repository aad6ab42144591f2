"""Make graphs: PyTorch modules to ONNX files, verified, in a bundle."""
