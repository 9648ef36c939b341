"""Corr-A-Net, its predictors, and the table that compares them (Dutta et al. 2025)."""
