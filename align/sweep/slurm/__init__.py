"""A sweep on SLURM: queue.py (the queue), planning.py (what to submit), submission.py, scripts.py."""
