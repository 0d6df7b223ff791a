"""Checks of this machine, and of a run on it: small functions that give what was found and what to do."""
