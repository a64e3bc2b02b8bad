"""What codes are for: encode, reconstruct, probe, manipulate, interpolate, sample."""
