"""Attention MIL on H&E (Abdulsadig et al.)."""
