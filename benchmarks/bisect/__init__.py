"""Find the node of a graph in which a backend leaves PyTorch."""
