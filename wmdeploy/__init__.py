"""Latent world models from PyTorch to a deployment: clip -> model -> graphs -> bundle -> engines.

Importing this package imports nothing heavy; `wmdeploy.families.reference` needs torch.
"""

import os

__version__ = "0.1.0"

# CUDA then counts GPUs as their driver's library does (`wmdeploy.gpu`), not the fastest first. It
# is read when CUDA starts; processes that are started inherit it.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
# ONNX Runtime reads it when it is imported (its docs/Privacy.md), which all of our packages do
# after this line; processes that they start inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# The same for huggingface_hub, which adds to each request what it runs in.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
