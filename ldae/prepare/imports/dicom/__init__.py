"""A manifest from folders of DICOM files."""
