"""Parts that the docks are made of."""
