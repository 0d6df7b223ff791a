"""Answers of a local model or of one behind an address, and where they are kept."""
