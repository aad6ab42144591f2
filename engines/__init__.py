"""Turn graphs into something that runs, and run it. Knows the manifest and nothing of the model."""

if __name__ == "engines":
    raise ImportError("got 'import engines', expected 'import wmdeploy.engines'")
