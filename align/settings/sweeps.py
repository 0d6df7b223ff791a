"""A grid of runs, and the cluster that it runs on."""

from __future__ import annotations

from dataclasses import dataclass

from align.settings.evaluation import Evaluate
from align.settings.option import option


@dataclass
class Job:
    """What one kind of job asks SLURM for, by sbatch's names; what is null is SLURM's default, or the training jobs'."""

    partition: str | None = option(None, "partition")
    account: str | None = option(None, "account that is charged")
    qos: str | None = option(None, "quality of service")
    nodes: int | None = option(None, "machines of one job")
    gpus_per_node: int | None = option(None, "GPUs of each machine; 0 asks for none")
    cpus_per_task: int | None = option(None, "cores of each machine that the job uses")
    mem: str | None = option(None, "memory of each machine, e.g. 64G; 0 is all")
    time: str | None = option(None, "time limit, e.g. 12:00:00")
    signal_seconds: int | None = option(
        None, "training: so long before the limit a checkpoint is written and the job requeued (default 300)"
    )
    options: list[str] = option(list, "further options of sbatch, as they are, e.g. '--constraint=a100'")


@dataclass
class JudgeJob(Job):
    """A judge server as a job, which evaluations wait for."""

    command: str | None = option(
        None, "what is run there, e.g. 'vllm serve <model> --host 0.0.0.0 --port $PORT' (default: there is no such job)"
    )
    patience: int = option(3600, "seconds that an evaluation waits for the server to answer")


@dataclass
class Cluster(Job):
    """A SLURM cluster: what training jobs ask for, what other jobs ask for otherwise, and how a job finds the package."""

    evaluate: Job = option(Job, "")
    table: Job = option(Job, "")
    judge: JudgeJob = option(JudgeJob, "")
    setup: str = option("", "lines that every job runs first: modules, environments, variables")
    command: str | None = option(
        None, "how a job starts `align`, e.g. 'apptainer exec --nv image.sif align' (default: as it runs here)"
    )


@dataclass
class SweepConfig:
    """A grid of runs; every other key is a setting of the runs, and several values of it an axis."""

    grid: str | None = option(
        None,
        "a shipped grid (paper, miniature) or a YAML file: `axes:` {key: [values]}, `settings:` of all runs, and any key beside this one",
    )
    launcher: str = option("local", "local | slurm")
    cluster: Cluster = option(Cluster, "")
    output_dir: str = option("runs/sweep", "where runs, plan, scripts and tables go")
    at_once: int | None = option(
        None, "how many runs train at once (default: local 1, slurm what the cluster gives); a job array's %limit"
    )
    devices: list[str] = option(list, "local: GPUs that runs are given, evenly over those at once, e.g. 0,1,2,3")
    vanilla: bool = option(True, "evaluate each model as it is, too")
    defence: list[str] = option(list, "and behind these prompts")
    tune: list[str] = option(
        list, "axes of which one value is chosen for each cell of the others (seeds together), e.g. train.learning_rate"
    )
    validate: Evaluate = option(
        Evaluate,
        "with tune=: what the choice is made by; its results are kept in <run>/validation, which no table reads",
    )
    hours: bool = option(True, "estimate GPU hours")
    status: bool = option(False, "show the grid as it stands, and start nothing")
    finish: bool = option(False, "choose, make the tables and say what is missing; the last job of a sweep does that")
    dry_run: bool = option(False, "show the plan, with launcher=slurm the scripts too, and start nothing")
