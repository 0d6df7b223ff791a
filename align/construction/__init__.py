"""Construct image-text pairs whose harm only the image shows, with safe twins (VLSBench, section 3.2)."""
