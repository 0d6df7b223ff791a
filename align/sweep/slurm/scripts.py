"""Scripts of slurm/ with a cluster's lines inserted.

Users can also read and submit them by hand.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import fields, replace

from align.config.files import shipped_folder
from align.errors import UserError
from align.settings import Cluster, Job
from align.sweep.tasks import EVALUATE, TRAIN, VALIDATE

MARK = "# --- lines of your cluster: modules, environment, container ---\n"
JUDGE, CHOOSE, TABLE = "judge", "choose", "table"
FILES = {TRAIN: "train", VALIDATE: "evaluate", EVALUATE: "evaluate", JUDGE: "judge", CHOOSE: "table", TABLE: "table"}
SHARED = ("partition", "account", "qos", "time")
"""Options that other jobs take from training jobs if the cluster file does not set them."""


def script(stage: str, cluster: Cluster, variables: dict[str, str]) -> str:
    """Script of one stage, with its sbatch options and setup lines. Raises UserError."""
    file = shipped_folder("slurm") / f"{FILES[stage]}.sh"
    text = file.read_text(encoding="utf-8")
    if MARK not in text:
        raise UserError(
            f"{file}: the line {MARK.strip()!r} is missing. Restore it; the cluster's lines are inserted after it."
        )
    before, _, after = text.partition(MARK)
    command = cluster.command or shlex.join([sys.executable, "-m", "align.cli"])
    exports = {"ALIGN": command} | variables
    lines = [*(f"export {name}={shlex.quote(value)}" for name, value in exports.items()), *cluster.setup.splitlines()]
    asked = "".join(f"#SBATCH {option}\n" for option in options(stage, cluster))
    # Later lines override earlier ones, so the options come after the script's own.
    return before + asked + MARK + "".join(f"{line}\n" for line in lines) + after


def options(stage: str, cluster: Cluster) -> list[str]:
    """Options of a stage's job for sbatch."""
    job = job_of(stage, cluster)
    values = {
        "partition": job.partition,
        "account": job.account,
        "qos": job.qos,
        "nodes": job.nodes,
        "gpus-per-node": job.gpus_per_node or None,
        "cpus-per-task": job.cpus_per_task,
        "mem": job.mem,
        "time": job.time,
        "signal": f"USR1@{job.signal_seconds}" if job.signal_seconds else None,
    }
    asked = [*(f"--{name}={value}" for name, value in values.items() if value is not None), *job.options]
    for option in asked:
        if "\n" in option:
            raise UserError(f"cluster: {option!r} (stage {stage}) has a line break. Remove it.")
    return [shlex.quote(option) for option in asked]


def job_of(stage: str, cluster: Cluster) -> Job:
    """Resources of a stage's job; unset ones are taken from training jobs."""
    training = Job(**{field.name: getattr(cluster, field.name) for field in fields(Job)})
    if stage == TRAIN:
        return training
    own = {EVALUATE: cluster.evaluate, VALIDATE: cluster.evaluate, JUDGE: cluster.judge}.get(stage, cluster.table)
    given = {field.name: getattr(own, field.name) for field in fields(Job)}
    shared = {name: getattr(training, name) for name in SHARED if given[name] is None}
    # An evaluation, and a judge, need a GPU where training does; tables need none.
    if stage not in (CHOOSE, TABLE) and given["gpus_per_node"] is None and training.gpus_per_node:
        shared["gpus_per_node"] = 1
    return replace(Job(**given), **shared)
