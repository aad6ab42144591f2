"""Time the engines, and prove that they compute what PyTorch computes."""
