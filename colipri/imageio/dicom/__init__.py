"""DICOM: finding files, reading headers, sorting slices into volumes, decoding, reports."""
