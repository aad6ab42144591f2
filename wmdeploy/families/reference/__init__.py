"""The world models this project knows: configuration, layers, checkpoints, deployable graphs."""
