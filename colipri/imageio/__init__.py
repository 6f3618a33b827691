"""Reading images: nnU-Net's formats and DICOM series, brought to one orientation."""
