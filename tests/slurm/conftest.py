"""A cluster for all tests of this folder; without SLURM on the machine they are skipped."""

import pytest

from tests.support.slurm_cluster import missing, slurm_cluster


@pytest.fixture(scope="session")
def cluster():
    """Twelve nodes with two processors and eight stand-ins for GPUs each."""
    if absent := missing():
        pytest.skip(f"no SLURM here: {', '.join(absent)} not found (Debian: slurmctld slurmd slurm-client munge)")
    with slurm_cluster(nodes=12, cpus=2, gpus=8, kill_wait=6, grace=12, settings=["KillOnBadExit=1"]) as running:
        yield running
