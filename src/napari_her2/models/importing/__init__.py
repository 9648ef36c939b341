"""Checkpoints of published code as bundles: a file a kind, which maps its tensors to those of our head.

`kinds` lists them without PyTorch, `renaming` moves tensors from their names to ours and names what does not
fit, `importer` writes the bundle.
"""
