"""Manifests of images that lie elsewhere: BIDS, DICOM, study tables, folders with a table."""
