"""Published weights as files of this package."""
