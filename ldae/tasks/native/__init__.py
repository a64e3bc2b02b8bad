"""Results on the raw scan's own grid."""
