"""Networks, patch encoders and the bundles they travel in."""
