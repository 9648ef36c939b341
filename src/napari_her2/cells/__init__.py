"""Cells of HER2 IHC: found, their membranes measured, and judged by the criteria. No torch, no Qt."""
