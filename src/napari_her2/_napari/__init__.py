"""What napari's manifest names: readers, sample data, layers. No Qt."""
