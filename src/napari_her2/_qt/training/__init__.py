"""The dock HER2 Training."""
