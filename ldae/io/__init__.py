"""Files in and out: model folders, weights of other programs, files written whole."""
