"""A grid of runs, and the cluster that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.settings.evaluation import Evaluate
from align.settings.option import option


@dataclass
class Job:
    """What one kind of job requests from SLURM, under sbatch's names.

    null is the training jobs' value or, in training jobs, SLURM's default.
    """

    partition: str | None = option(None, "partition")
    account: str | None = option(None, "account that is charged")
    qos: str | None = option(None, "quality of service")
    nodes: int | None = option(None, "machines per job")
    gpus_per_node: int | None = option(None, "GPUs per machine; 0 requests none")
    cpus_per_task: int | None = option(None, "CPU cores per machine")
    mem: str | None = option(None, "memory per machine, e.g. 64G; 0 requests all")
    time: str | None = option(None, "time limit, e.g. 12:00:00")
    signal_seconds: int | None = option(
        None, "training jobs: seconds before the time limit to write a checkpoint and requeue the job (default: 300)"
    )
    options: list[str] = option(list, "further options of sbatch, passed unchanged, e.g. '--constraint=a100'")


@dataclass
class JudgeJob(Job):
    """A job that serves a judge; evaluations wait for its endpoint."""

    command: str | None = option(
        None,
        "command that serves the judge, e.g. 'vllm serve <model> --host 0.0.0.0 --port $PORT' (default: no such job)",
    )
    patience: int = option(3600, "seconds that an evaluation waits for the endpoint to respond")


@dataclass
class Cluster(Job):
    """A SLURM cluster: what training jobs request, where other jobs differ, and how a job finds the package."""

    evaluate: Job = option(Job, "")
    table: Job = option(Job, "")
    judge: JudgeJob = option(JudgeJob, "")
    setup: str = option("", "shell lines that every job runs first: modules, environments, variables")
    command: str | None = option(
        None,
        "command that starts `align` in a job, e.g. 'apptainer exec --nv image.sif align' (default: as on this "
        "machine)",
    )


@dataclass
class SweepConfig:
    """A grid of runs. Every other key is a setting of the runs; a key with several values is an axis."""

    grid: str | None = option(
        None,
        "a shipped grid (paper, miniature) or a YAML file: `axes:` {key: [values]}, `settings:` of all runs, and any "
        "other key of a sweep",
    )
    launcher: str = option("local", "local | slurm")
    cluster: Cluster = option(Cluster, "")
    output_dir: str = option("runs/sweep", "folder for runs, plan, scripts and tables")
    at_once: int | None = option(
        None, "number of runs that train at once, a job array's %limit (default: local 1, slurm what the cluster gives)"
    )
    devices: list[str] = option(list, "local: GPUs, divided evenly among the runs that train at once, e.g. 0,1,2,3")
    vanilla: bool = option(True, "also evaluate each untrained model")
    defence: list[str] = option(list, "also evaluate each untrained model with these defences")
    defence_settings: dict[str, Any] = option(dict, "settings of the defences: defence_settings.<defence>.<key>=")
    tune: list[str] = option(
        list,
        "axes to tune: one value is chosen per combination of the other axes, over all seeds, e.g. train.learning_rate",
    )
    validate: Evaluate = option(
        Evaluate,
        "with tune=: the evaluation that chooses the value; its results are in <run>/validation, which no table reads",
    )
    hours: bool = option(True, "estimate GPU hours")
    status: bool = option(False, "show the state of the grid, and start nothing")
    finish: bool = option(
        False, "choose tuned values, write the tables and report missing runs, as a sweep's last job does"
    )
    dry_run: bool = option(False, "show the plan (and the scripts, with launcher=slurm), and start nothing")
