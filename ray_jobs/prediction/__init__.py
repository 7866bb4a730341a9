"""Baselines that a hospital can compare with: counts of the timeline before each prediction, and models on them."""

import os

# LightGBM's threads wait by spinning: where other work shares the cores, they took a hundred times as long
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
