"""Uses of codes: encode, reconstruct, probe, manipulate, interpolate, sample."""
