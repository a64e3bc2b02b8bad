"""Files in and out: checkpoints, the preprocessing contract, the template."""
