"""Latent world models from PyTorch to a deployment: clip -> model -> graphs -> bundle -> engines.

Importing this package imports nothing heavy; `wmdeploy.models` needs torch.
"""

import os

__version__ = "0.1.0"

# CUDA then counts GPUs as their driver's library does (`wmdeploy.gpu`), not the fastest first. It
# is read when CUDA starts; processes that are started inherit it.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
