"""Folders and archives of DICOM series."""
