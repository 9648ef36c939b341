"""Encoders of patches: made, pre-trained on labelled patches, kept as weights."""
