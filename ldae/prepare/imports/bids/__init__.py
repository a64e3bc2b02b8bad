"""A manifest from a BIDS data set."""
