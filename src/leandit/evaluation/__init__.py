"""Measure what a run draws: distances between sets of pictures, agreement with prompts, and the held-out loss."""
