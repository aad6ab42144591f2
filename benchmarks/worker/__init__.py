"""Run one backend in a process of its own."""
