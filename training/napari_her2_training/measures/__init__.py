"""What is measured of a model, and with what intervals; the same for all methods."""
