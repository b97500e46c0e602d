"""Writing, signing, addenda, PDF and DICOM Encapsulated PDF."""
