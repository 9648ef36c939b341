"""Slides read without looking: worklists, readings of several readers, how far they agree."""
