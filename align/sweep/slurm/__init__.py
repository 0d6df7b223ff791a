"""A sweep on a SLURM cluster: queue.py (what is there), planning.py (what is added), submission.py (how), scripts.py (what runs)."""
