"""The dock HER2 Reading: slides read without looking at names, models and maps."""
