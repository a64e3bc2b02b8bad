"""Several visits of one subject: interpolation and trajectories."""
