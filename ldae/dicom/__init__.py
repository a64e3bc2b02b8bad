"""DICOM series: read (dcm2niix), select, deidentify, write."""
