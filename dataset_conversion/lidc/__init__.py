"""LIDC-IDRI, DICOM with the readings of four radiologists."""
