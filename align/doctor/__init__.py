"""Checks of this machine and of a run on it; each says what it found and what to do."""
