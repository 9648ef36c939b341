"""Joins slides and models: embed, cache, score."""
