"""Where the time of a frame goes: time per node and per module of the model."""
