"""Cohorts as they are distributed, turned into tables of cases: a file a source, over a small shared core."""
