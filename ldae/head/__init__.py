"""One scan: a Volume in, a Volume or findings out."""
