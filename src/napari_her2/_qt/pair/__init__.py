"""The two slides of a case: which they are, and how both are looked at."""
