"""A training run whatever is trained: its folder, the Lightning fit, its model, its record."""
