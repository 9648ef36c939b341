"""How two slides of a case lie on each other: affines in µm, set by hand or found, and kept."""
