"""DICOM series: read, choose, write."""
