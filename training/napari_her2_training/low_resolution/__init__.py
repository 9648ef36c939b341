"""The low-resolution ConvNeXt and the classifier of patches, on HER2 IHC (Chauhan et al.)."""
