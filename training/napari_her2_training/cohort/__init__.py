"""The cases to learn from: their table, their classes, their slides as bags of features."""
