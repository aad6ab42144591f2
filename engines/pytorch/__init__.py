"""The bundle's model in PyTorch: eager, compiled, captured."""
