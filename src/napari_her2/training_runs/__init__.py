"""Trainings as processes: started, followed, stopped; without napari, Qt or the training package."""
