"""What of a sweep is in the queue of a cluster."""


def jobs(cluster):
    """[(name, array index or none, state)] of the queue."""
    lines = cluster.call("squeue", "-h", "-r", "-o", "%i|%j|%T").splitlines()
    return [(name, job.partition("_")[2], state) for job, name, state in (line.split("|") for line in lines)]


def of_stage(cluster, stage):
    """Lines `id|name` of the queue, of one stage."""
    lines = cluster.call("squeue", "-h", "-r", "-o", "%i|%j").splitlines()
    return [line for line in lines if line.endswith(f"-{stage}")]


def wait_for_the_end(cluster, seconds):
    """Wait until no job of the sweep is in the queue."""
    cluster.wait(
        lambda: not [name for name, _, _ in jobs(cluster) if name.startswith("align-")], "the end of the sweep", seconds
    )
