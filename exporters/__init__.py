"""Make graphs: PyTorch modules to ONNX files, verified, in a bundle."""

if __name__ == "exporters":
    raise ImportError("got 'import exporters', expected 'import wmdeploy.exporters'")
