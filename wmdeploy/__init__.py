"""Latent world models from PyTorch to a deployment: clip -> model -> graphs -> bundle -> engines.

Importing this package imports nothing heavy; `wmdeploy.models` needs torch.
"""

__version__ = "0.1.0"
