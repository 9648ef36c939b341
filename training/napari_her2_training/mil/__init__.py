"""Slide models on frozen features, by one protocol: the aggregators that others are compared with."""
