"""C-ECHO and C-STORE, the nodes of the DICOM network."""
