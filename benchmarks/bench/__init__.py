"""Run every backend in turns, and report what that gave."""
