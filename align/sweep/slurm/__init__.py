"""A sweep on a SLURM cluster: scripts.py (what is submitted), queue.py (what is there), submitting.py (what is added)."""
