"""Sweeps: a grid of runs, its state, and the rest of it run on this machine or on a SLURM cluster.

grid.py (arguments) -> cells.py (runs) -> rows.py (tasks of each row: tasks.py) -> state.py (what is
done, from results, events.py and the queue) -> local.py or slurm/ (run the rest) -> choosing.py
(settings by validation) -> finish.py (tables; what is missing, and why). folder.py is the folder of
a sweep, cost.py estimates its cost.
"""
