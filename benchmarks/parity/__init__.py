"""Measure how far a backend is from PyTorch, and pass or fail it."""
