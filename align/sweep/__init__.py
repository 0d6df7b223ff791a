"""Many runs at once: a grid of them, what of it is done, and who runs the rest, this machine or a SLURM cluster.

    arguments, grid file -> grid.py -> cells.py (what each run is) -> state.py (what is done) -> plan.py (what is left, what it costs)
        -> local.py or slurm/ (run it) -> choosing.py (by validation) -> finish.py (tables, what is missing and why)
"""
