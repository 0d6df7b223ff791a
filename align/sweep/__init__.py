"""Many runs at once: a grid of them, what of it is done, and who runs the rest, this machine or a SLURM cluster.

grid.py (what was asked) -> cells.py (its runs) -> tasks.py (what each takes) -> state.py (what is done) -> local.py or slurm/ (the rest)
-> choosing.py (settings, by validation) -> finish.py (tables; what is missing, and why). folder.py is where a sweep keeps itself.
"""
