"""Reading images: nnU-Net's formats and DICOM series, in one orientation."""
