"""Writes results for people and other tools."""
