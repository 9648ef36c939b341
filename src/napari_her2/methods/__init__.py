"""A file a method: what it is, what it takes, how it scores, and what it can explain."""
