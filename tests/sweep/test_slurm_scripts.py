"""What is submitted, by its text; that SLURM takes it is shown in tests/slurm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from align.config.compose import compose
from align.settings import Cluster
from align.sweep.folder import SweepFolder
from align.sweep.slurm.planning import lacks_of, planned
from align.sweep.slurm.queue import NAME, job_name
from align.sweep.slurm.scripts import FILES, MARK, options, script
from align.sweep.slurm.submission import Submission, _ranges, command, texts
from tests.support.sweeps import plan_of, trained

ROOT = Path(__file__).parents[2]
CLUSTER = [
    *(
        "partition=gpu",
        "account=mine",
        "gpus_per_node=8",
        "cpus_per_task=32",
        "mem='0'",
        "time=12:00:00",
        "signal_seconds=120",
        "nodes=2",
    ),
    *(
        "options=[--constraint=a100]",
        "evaluate.time=1:00:00",
        "evaluate.partition=small",
        "table.mem=4G",
        "command=apptainer exec a.sif align",
    ),
]


ASKED = ["evaluate.benchmark=mini_vsil", "evaluate.judge=vlsbench", "evaluate.judge.model=m"]


def cluster(*more):
    return compose(Cluster, [*CLUSTER, *more]).config


def test_what_each_kind_of_job_asks_for():
    assert options("train", cluster()) == [
        "--partition=gpu", "--account=mine", "--nodes=2", "--gpus-per-node=8", "--cpus-per-task=32", "--mem=0", "--time=12:00:00",
        "--signal=USR1@120", "--constraint=a100",
    ]  # fmt: skip
    assert options("evaluate", cluster()) == [
        "--partition=small",
        "--account=mine",
        "--gpus-per-node=1",
        "--time=1:00:00",
    ]
    assert options("table", cluster()) == ["--partition=gpu", "--account=mine", "--mem=4G", "--time=12:00:00"]
    assert options("judge", cluster("judge.gpus_per_node=4")) == [
        "--partition=gpu", "--account=mine", "--gpus-per-node=4", "--time=12:00:00",
    ]  # fmt: skip
    assert options("train", compose(Cluster, []).config) == []


def test_a_script_is_that_of_slurm_with_what_is_asked_for_and_the_clusters_lines_where_they_belong():
    text = script("train", cluster("setup='module load cuda'"), {"WHO": "it's me"})
    before, _, after = text.partition(MARK)
    assert before.startswith("#!/usr/bin/env bash\n")
    assert before.rstrip().endswith("#SBATCH --constraint=a100")
    assert after.startswith("export ALIGN='apptainer exec a.sif align'\nexport WHO='it'\"'\"'s me'\nmodule load cuda\n")
    assert "srun" in after
    assert "#SBATCH" not in after


def test_every_stage_has_a_script_that_bash_reads():
    for stage in FILES:
        checked = subprocess.run(["bash", "-n"], input=script(stage, cluster(), {}), text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_names_tell_what_a_job_is():
    match = NAME.fullmatch(job_name("0123abcd", 17, "evaluate"))
    assert match
    assert match.groupdict() == {"sweep": "0123abcd", "number": "0017", "stage": "evaluate"}


def test_indices_are_written_as_ranges():
    assert _ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert _ranges([4]) == "4"


def test_lines_of_arguments_are_read_by_the_shell_as_they_were_typed(tmp_path):
    plan = plan_of(
        [
            "recipe=t_sft,mm_sft",
            'model.system_prompt=it\'s "so" $HOME `x` \\ é',
            f"output_dir={tmp_path}/a b",
            "vanilla=false",
        ]
    )
    submission = Submission(SweepFolder(tmp_path / "a b"), 1, plan.rows)
    for line, row in zip(submission.lines("train").splitlines(), plan.rows, strict=True):
        told = subprocess.run(
            ["bash", "-c", f'eval "set -- {line}" && printf "%s\\0" "$@"'], capture_output=True, text=True
        )
        read = subprocess.run(
            ["bash", "-c", 'eval "set -- $1"; printf "%s\\0" "$@"', "_", line], capture_output=True, text=True
        )
        assert read.stdout.split("\0")[:-1] == list(row.tasks[0].arguments), told.stderr
    assert submission.lines("validate") == "\n\n"


def test_rows_that_are_trained_are_only_evaluated_and_a_judge_comes_after_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr("align.sweep.slurm.planning.max_array_size", lambda: 1001)  # asks SLURM
    plan = plan_of(
        [
            "recipe=t_sft,mm_sft",
            "seed=0,1",
            f"output_dir={tmp_path}",
            "vanilla=false",
            "evaluate.benchmark=mini_vsil",
            "evaluate.judge=vlsbench",
            "evaluate.judge.model=m",
        ]
    )
    trained(plan.rows[0].path)
    config = compose_sweep("cluster.judge.command=serve", "at_once=2")
    [submission] = planned(SweepFolder(tmp_path), plan, config, {}, [], lacks_of(plan))
    assert [row.path for row in submission.rows][-1] == plan.rows[0].path  # those that train come first
    ids = {"train": "10", "judge": "11", "evaluate": "12:13"}
    words = [command(submission, batch, config, ids) for batch in submission.batches]
    told = [
        (batch.stage, [word for word in of if word.startswith(("--array", "--dependency"))])
        for batch, of in zip(submission.batches, words, strict=True)
    ]
    assert told == [
        ("train", ["--array=0-2%2"]),
        ("judge", ["--dependency=afterany:10"]),
        ("evaluate", ["--array=0-2%2", "--dependency=aftercorr:10,after:11"]),
        ("evaluate", ["--array=3%2", "--dependency=after:11"]),
        ("table", ["--dependency=afterany:10,afterany:12:13"]),
    ]
    written = texts(submission, config)
    assert "export JUDGE_COMMAND=serve\n" in written["judge.sh"]
    assert "JUDGE_ADDRESS" in written["evaluate.sh"].partition(MARK)[2].splitlines()[1]
    assert f"export JUDGE_JOB={submission.name('judge')}\n" in written["table.sh"]


def compose_sweep(*arguments):
    from align.settings import SweepConfig

    return compose(SweepConfig, arguments).config


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_what_scripts_share_is_that_of_the_shared_file(name):
    """SLURM runs a copy of one file, so `make slurm` copies slurm/shared.sh into both."""
    text = (ROOT / "slurm" / f"{name}.sh").read_text(encoding="utf-8")
    copied = text.partition("# --- from slurm/shared.sh (make slurm) ---\n")[2]
    shared = (ROOT / "slurm" / "shared.sh").read_text(encoding="utf-8")
    assert copied.partition("# --- end of slurm/shared.sh ---\n")[0] == "".join(shared.splitlines(keepends=True)[2:])


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed (Debian: shellcheck)")
@pytest.mark.parametrize(
    "script", ["slurm/train.sh", "slurm/evaluate.sh", "slurm/judge.sh", "slurm/table.sh", ".ci/run"]
)
def test_scripts_have_no_fault_that_shellcheck_knows(script):
    found = subprocess.run(["shellcheck", ROOT / script], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")
