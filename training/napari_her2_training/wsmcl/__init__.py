"""WSMCL on the H&E and IHC slides of a case (Shi et al.)."""
