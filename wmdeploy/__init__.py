"""Latent world models from PyTorch to a deployment: clip -> model -> graphs -> bundle -> engines.

Importing this package imports nothing heavy; `wmdeploy.models` needs torch.
"""

import os

__version__ = "0.1.0"

# ONNX Runtime reads it when it is imported (its docs/Privacy.md), which all of our packages do
# after this line; processes that they start inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
