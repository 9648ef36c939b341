"""Training of the models that napari-her2 scores slides with."""
