"""Time the engines, and prove that they compute what PyTorch computes."""

if __name__ == "benchmarks":
    raise ImportError("got 'import benchmarks', expected 'import wmdeploy.benchmarks'")
