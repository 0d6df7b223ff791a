"""A sweep on SLURM: queue.py (queue), planning.py (plan), submission.py, scripts.py."""
