"""A sweep on a real SLURM: what fails, what is preempted, what is asked for twice, and whoever is
killed while submitting.
"""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections import Counter

import pytest

from align.files import read_jsonl
from align.run_folder import RunFolder
from align.sweep.folder import SweepFolder
from tests.slurm.test_runs import same_bits, steps
from tests.support.slurm_queue import jobs, of_stage, wait_for_the_end

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

DATA = [
    *("suite=miniature", "data.harmful.rows=24", "data.benign.rows=24"),
    *("train.learning_rate=1e-2", "global_batch_size=8", "train.logging_steps=1", "model.dtype=float32"),
    *(
        "evaluate.benchmark=mini_vsil,mini_benign",
        "evaluate.settings.mini_vsil.limit=8",
        "evaluate.settings.mini_benign.limit=8",
    ),
    *("launch.config=cpu", "hours=false", "launcher=slurm"),
]


@pytest.fixture
def sweep(cluster, tmp_path):
    """A function: arguments of `align sweep` in a folder of its own -> what it prints; its exit status must be 0."""

    def call(*arguments, **environment):
        words = [sys.executable, "-m", "align.cli", "sweep", f"output_dir={tmp_path / 'sweep'}", *arguments]
        done = subprocess.run(
            words, env=cluster.environment | environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{cluster.logs()}"
        return done.stdout

    return call


@pytest.fixture(autouse=True)
def empty_queue(cluster):
    """What a test leaves in the queue, failed or not, is not of the next one."""
    yield
    cluster.call("scancel", "--me")
    cluster.wait(lambda: not cluster.call("squeue", "-h"), "an empty queue")


def begun(run, stage="train"):
    """How often a job began on a stage."""
    return sum("began" in event and event["stage"] == stage for event in read_jsonl(run.path / "jobs.jsonl"))


def put_another_run(run):
    """Another run stands where this one is to go: the error of a bad cell."""
    run.path.mkdir(parents=True)
    run.manifest_file.write_text(json.dumps({"fingerprint": "another run"}))


def preempt(cluster, run):
    """After its first steps a job of a higher priority takes the node of the run."""
    cluster.wait(lambda: steps(run) >= 3, "three steps", 240)
    node = next(event["nodes"] for event in read_jsonl(run.path / "jobs.jsonl") if "began" in event)
    cluster.submit("--partition=high", "--exclusive", f"--nodelist={node}", "--wrap", "sleep 1")


def undisturbed(cluster, sweep_folder, run, path):
    """The same run, trained in another folder without a sweep."""
    arguments = next(row.tasks[0].arguments for row in sweep_folder.read().rows if row.path == run.path)
    words = [*arguments, f"output_dir={path}", "evaluate_afterwards=false"]
    train = [sys.executable, "-m", "align.cli", "train", *words]
    subprocess.run(train, env=cluster.environment, check=True, capture_output=True)
    return RunFolder(path)


@pytest.mark.long
def test_a_grid_with_a_preempted_a_failing_and_a_two_node_run(cluster, sweep, tiny, tmp_path):
    """2 recipes x 2 models x 2 seeds, trained, evaluated, and made a table of."""
    started = time.monotonic()
    folder = SweepFolder(tmp_path / "sweep")
    models = [str(tiny(family)) for family in ("llava", "qwen2_vl")]
    grid = [
        "recipe=t_sft,mm_sft",
        f"model={','.join(models)}",
        "seed=0,1",
        *DATA,
        "train.max_steps=24",
        "train.save_steps=100",
    ]
    two_nodes = ["recipe=mm_sft", f"model={models[0]}", "seed=1", *grid[3:], "cluster.nodes=2", "vanilla=false"]
    assert "job" in sweep(*two_nodes)
    dry = sweep(*grid, "at_once=3", "cluster.partition=patient", "dry_run=true")
    assert "#SBATCH --partition=patient" in dry
    assert "--array=0-6%3" in dry  # the eighth is queued already
    first = sweep(*grid, "at_once=3", "cluster.partition=patient")
    rows = {tuple(row.axes.values()): RunFolder(row.path) for row in folder.read().rows}
    assert len(rows) == 8 + 2
    bad = rows["t_sft", models[1], "1"]
    put_another_run(bad)
    assert "train, rows: 7" in first
    assert "Nothing to submit" in sweep(*grid)
    assert Counter(jobs(cluster)).most_common(1)[0][1] == 1

    preempted = rows["t_sft", models[0], "0"]
    preempt(cluster, preempted)
    wait_for_the_end(cluster, 600)

    assert begun(preempted) == 2
    assert rows["mm_sft", models[0], "1"].manifest()["world_size"] == 2
    assert [begun(run) for run in rows.values() if (run.path / "train.log").is_file()].count(1) == 7
    shown = sweep("status=true").replace("\n", " ")
    assert "9 done, 1 failed" in shown
    status = json.loads((folder.path / "status.json").read_text())
    [failed] = [row for row in status["rows"] if row["state"] == "failed"]
    assert "another run: its fingerprint is" in failed["why"]
    table = (folder.output_dir / "table.md").read_text()
    assert f"failed (train): tiny-qwen2_vl0/{bad.path.name}, recipe=t_sft" in table
    for arm, seeds in (
        ("tiny-llava0 | T-SFT", "0,1"),
        ("tiny-llava0 | MM-SFT", "0,1"),
        ("tiny-qwen2_vl0 | T-SFT", "0"),
    ):
        assert f"| paper | {arm} | SFT | {seeds} | 24 |" in table
    assert not (bad.path / "evaluation").exists()

    assert same_bits(preempted, undisturbed(cluster, folder, preempted, tmp_path / "undisturbed"))

    bad.manifest_file.unlink()
    again = sweep(*grid)
    assert "train of 1 rows" in again
    assert "evaluate of 1 rows" in again
    wait_for_the_end(cluster, 300)
    assert "10 done" in sweep("status=true")
    assert "| T-SFT | SFT | 0,1 | 24 |" in (folder.output_dir / "table.md").read_text()
    print(f"the whole: {time.monotonic() - started:.0f} s")


SHIM = """#!{python}
import os, signal, sys, time
count = int(open({count!r}).read() or 0) + 1
open({count!r}, "w").write(str(count))
mode, at = os.environ["KILL"].split("@")
if count == int(at) and mode == "before":
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(1)
if count == int(at) and mode == "during":
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(1)
status = os.spawnv(os.P_WAIT, {sbatch!r}, ["sbatch", *sys.argv[1:]])
if count == int(at) and mode == "after":
    os.kill(os.getppid(), signal.SIGKILL)
sys.exit(status)
"""


@pytest.mark.long
@pytest.mark.parametrize("tuned", [False, True], ids=["plain", "tuned"])
def test_whoever_submits_may_be_killed_anywhere_and_nothing_is_there_twice_or_lost(cluster, tmp_path, tuned, tiny):
    """Killed at each sbatch: before it, after it, and while it is on its way. The jobs wait, so
    that the queue can be looked at.
    """
    import shutil

    sbatch = shutil.which("sbatch")
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "sbatch"
    shim.write_text(SHIM.format(python=sys.executable, count=str(tmp_path / "count"), sbatch=sbatch))
    shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    tune = ["train.weight_decay=0.0,0.1", "tune=train.weight_decay", "validate.benchmark=mini_twin"] if tuned else []
    base = [f"model={tiny('llava')}", "recipe=t_sft,mm_sft", *DATA, *tune, "cluster.options=[--begin=now+1hour]"]
    stages = Counter(
        {"train": 4, "validate": 4, "evaluate": 3, "choose": 1, "table": 1}
        if tuned
        else {"train": 2, "evaluate": 3, "table": 1}
    )
    kills = [(mode, at) for at in range(1, len(stages) + 2) for mode in ("before", "during", "after")]
    for number, (mode, at) in enumerate(kills):
        words = [sys.executable, "-m", "align.cli", "sweep", *base, f"output_dir={tmp_path / f'sweep{number}'}"]
        (tmp_path / "count").write_text("")
        environment = cluster.environment | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "KILL": f"{mode}@{at}"}
        killed = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert killed.returncode in (-signal.SIGKILL, 0), killed.stderr
        for _ in range(20):
            again = subprocess.run(words, env=cluster.environment, cwd=tmp_path, capture_output=True, text=True)
            if again.returncode == 0:
                break
            assert "another `align sweep` is running here" in again.stderr
            time.sleep(0.3)
        assert again.returncode == 0, again.stderr
        there = jobs(cluster)
        found = Counter(name.rpartition("-")[2] for name, _, _ in there)
        # The choice and the table may be there once more: they make nothing, and the one that comes last sees all.
        assert found.pop("table") >= 1
        assert found.pop("choose", 1) >= 1
        assert found == Counter({stage: n for stage, n in stages.items() if stage not in ("table", "choose")}), (
            mode,
            at,
            there,
        )
        subprocess.run(words, env=cluster.environment, cwd=tmp_path, check=True, capture_output=True)
        assert len(jobs(cluster)) == len(there), "the third time adds nothing"
        if tuned:  # the choice that the evaluation of the chosen waits for has seen every validation
            arrays = {
                stage: {line.split("|")[0].split("_")[0] for line in of_stage(cluster, stage)}
                for stage in ("validate", "evaluate")
            }
            waits = [cluster.details(line.split("|")[0])["Dependency"] for line in of_stage(cluster, "evaluate")]
            chosen_by = {found[1] for wait in waits if (found := re.search(r"afterok:(\d+)", wait))}
            assert chosen_by
            for job in chosen_by:
                waited = cluster.details(job)["Dependency"]
                assert all(f"afterany:{array}_" in waited for array in arrays["validate"]), (mode, at, waited, arrays)
        cluster.call("scancel", "--me")
        cluster.wait(lambda: not cluster.call("squeue", "-h"), "an empty queue")


@pytest.mark.long
def test_a_thousand_runs_and_more_are_arrays_of_a_size_that_slurm_takes(cluster, sweep, tmp_path):
    rates = ",".join(f"{n}e-6" for n in range(1, 54))
    grid = ["recipe=t_sft,mm_sft", f"train.learning_rate={rates}", "seed=0,1,2,3,4,5,6,7,8,9", "at_once=4"]
    grid += [setting for setting in DATA if not setting.startswith("train.learning_rate")]
    said = sweep(*grid, "model=mini_llava", "cluster.options=[--begin=now+1hour]")
    assert "1060 runs" in said
    assert "train, rows: 1001" in said
    assert "train, rows: 59" in said
    names = Counter(name.rpartition("-")[2] for name, _, _ in jobs(cluster))
    assert (names["train"], names["evaluate"]) == (1060, 1061)
    scripts = list((tmp_path / "sweep/sweep/submissions").rglob("*.sh"))
    assert len(scripts) == 6
    assert (
        max(script.stat().st_size for script in scripts) < 16 * 1024
    )  # of the four MiB that SLURM takes (max_script_size)
    assert "Nothing to submit" in sweep(*grid, "model=mini_llava")


@pytest.mark.long
def test_a_judge_server_is_a_job_that_evaluations_wait_for_and_the_last_job_ends(cluster, sweep, tiny, tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    command = f"{sys.executable} -m tests.support.lenient_judge $PORT"
    asked = [setting for setting in DATA if not setting.startswith("evaluate.benchmark")]
    judge = ["evaluate.benchmark=mini_vsil", "evaluate.judge=vlsbench", "evaluate.judge.model=m", "vanilla=false"]
    run = ["recipe=mm_sft", f"model={tiny('llava')}", "train.max_steps=2", *asked, *judge]
    said = sweep(
        *run, f"cluster.judge.command={command}", f"cluster.setup=export PYTHONPATH={cluster.environment['PYTHONPATH']}"
    )
    assert [line.split(", ")[1].split()[0] for line in said.splitlines() if line.startswith("Submitted")] == [
        "train",
        "judge",
        "evaluate",
        "table",
    ]
    cluster.wait(lambda: not jobs(cluster), "the end of the sweep, its judge's too", 240)
    [row] = folder.read().rows
    summary = json.loads((row.path / "evaluation/mini_vsil/summary.vlsbench.json").read_text())
    counts = summary["counts"]  # an untrained model's answers may be incoherent, whatever the judge says
    assert (summary["n"], counts["refusal"] + counts["incoherent"]) == (8, 8)
    assert counts["refusal"] > 0
    assert "waiting for the judge server" in (row.path / "evaluate.log").read_text()
    assert "T-SFT" not in (folder.output_dir / "table.md").read_text()


@pytest.mark.long
def test_what_is_queued_is_seen_however_it_is_looked_for_and_what_was_cancelled_is_submitted_again(
    cluster, sweep, tmp_path
):
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    grid = ["recipe=t_sft,mm_sft", "seed=0", *DATA, "cluster.options=[--begin=now+1hour]", "vanilla=false"]
    assert "train, rows: 2" in sweep(*grid)
    assert "Nothing to submit" in sweep(*grid, SQUEUE_STATES="RUNNING", SQUEUE_FORMAT="%j")
    words = [sys.executable, "-m", "align.cli", "sweep", f"output_dir={tmp_path / 'link' / 'sweep'}", *grid]
    assert "Nothing to submit" in subprocess.run(words, env=cluster.environment, capture_output=True, text=True).stdout
    [(first, *_)] = [line.split("|") for line in of_stage(cluster, "train") if "_0|" in line]
    cluster.call("scancel", first)
    cluster.wait(lambda: len(of_stage(cluster, "train")) == 1, "one training")
    said = sweep(*grid)
    assert "train of 1 rows" in said
    assert "evaluate of 1 rows" in said
    assert (len(of_stage(cluster, "train")), len(of_stage(cluster, "evaluate"))) == (2, 2)
    assert "Nothing to submit" in sweep(*grid)
    local = [word for word in words if word != "launcher=slurm"]
    done = subprocess.run(local, env=cluster.environment, capture_output=True, text=True)
    assert (done.returncode, "launcher=slurm" in done.stderr) == (2, True)
