"""Many runs at once: a grid of them, what of it is done, and who runs the rest, this machine or a SLURM cluster.

grid.py (what was asked) -> cells.py (its runs) -> rows.py (what each row takes: tasks.py) -> state.py (what is done, by results, events.py
and the queue) -> local.py or slurm/ (the rest) -> choosing.py (settings, by validation) -> finish.py (tables; what is missing, and why).
folder.py is where a sweep keeps itself, cost.py what it would cost.
"""
