"""Measure what a run draws: distances between sets of pictures, agreement with prompts, held-out loss."""
