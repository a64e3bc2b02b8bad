"""The mark of every image that a network made."""

__all__ = ["SYNTHETIC"]

SYNTHETIC = "SYNTHETIC, not for diagnosis"
