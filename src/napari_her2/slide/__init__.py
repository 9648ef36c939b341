"""Whole slide images: open, read, stream tiles, find tissue."""
