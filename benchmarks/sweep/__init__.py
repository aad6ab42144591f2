"""Try every way to run a model."""
