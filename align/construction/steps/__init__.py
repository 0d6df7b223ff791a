"""The steps of a construction, a file each."""
