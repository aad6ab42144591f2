"""All that knows TensorRT: which package is there, how plans are built, checked and run."""
