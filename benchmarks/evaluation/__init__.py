"""Measure how well a model predicts, and which milestones it reaches."""
