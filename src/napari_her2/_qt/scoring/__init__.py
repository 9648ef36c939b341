"""The dock HER2 Scoring: from an open slide to its result."""
