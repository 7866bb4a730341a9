"""Baselines that a hospital can compare with: counts of the timeline before each prediction, and models on them."""
