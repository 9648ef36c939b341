"""The docks: the only room that imports Qt."""
