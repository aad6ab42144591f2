"""Turn graphs into something that runs, and run it. Knows the manifest and nothing of the model."""
