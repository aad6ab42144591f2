"""How well a model predicts: its frames, latents and rollouts beside what needs no model at all.

Importing this package loads no PyTorch.
"""
