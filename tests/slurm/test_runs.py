"""Real runs of a tiny model as jobs: what is interrupted, preempted or lost with its node ends with
what an undisturbed run ends with.
"""

import json
import shlex

import pytest
from safetensors.torch import load_file

from align.files import read_jsonl
from align.run_folder import RunFolder
from tests.slurm.test_job_scripts import EVALUATE, TRAIN, Job
from tests.support.small_run import arguments
from tests.support.trajectories import same_trajectory

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

EVALUATION = "evaluate={benchmark: [mini_vsil], settings: {mini_vsil: {limit: 6}}, generation: {max_new_tokens: 64, batch_size: 1}}"

STEPS = 160
"""Of a run that is preempted: on a quiet machine half as many are taken before the scheduler comes to it."""


def steps(run: RunFolder) -> int:
    return len(run.steps_file.read_text().splitlines()) if run.steps_file.is_file() else 0


def same_bits(one: RunFolder, two: RunFolder) -> bool:
    weights = [load_file(run.weights / "adapter_model.safetensors") for run in (one, two)]
    return weights[0].keys() == weights[1].keys() and all((weights[0][k] == weights[1][k]).all() for k in weights[0])


@pytest.mark.long
def test_a_preempted_run_comes_back_to_the_same_adapter_and_is_evaluated_after(cluster, tiny, tmp_path):
    """Two runs and their evaluations, each an array: of the first the run is preempted, and the
    evaluation interrupted.
    """
    preempted, undisturbed = (RunFolder(tmp_path / name) for name in ("preempted", "undisturbed"))
    settings = [f"train.max_steps={STEPS}", "train.save_steps=500", EVALUATION]
    (tmp_path / "runs.txt").write_text(
        "".join(shlex.join(arguments(tiny("llava"), run.path, *settings)) + "\n" for run in (preempted, undisturbed))
    )
    (tmp_path / "evaluations.txt").write_text("".join(f"run={run.path}\n" for run in (preempted, undisturbed)))
    training = cluster.submit("--array=0-1", "--partition=patient", "--exclusive", TRAIN, tmp_path / "runs.txt")
    after = f"--dependency=aftercorr:{training}"
    evaluating = cluster.submit("--array=0-1", after, EVALUATE, tmp_path / "evaluations.txt")

    cluster.wait(lambda: steps(preempted) >= 5, "five steps", 240)
    node = f"--nodelist={cluster.details(f'{training}_0')['NodeList']}"
    cluster.submit("--partition=high", "--exclusive", node, "--wrap", "sleep 1")
    answers = preempted.evaluation / "mini_vsil" / "responses.jsonl"
    cluster.wait(lambda: answers.is_file() and answers.read_text().count("\n") >= 1, "an answer", 240)
    cluster.call("scancel", "--signal=USR1", f"{evaluating}_0")
    assert set(cluster.wait_until_ended(evaluating, 240).values()) == {"COMPLETED"}
    assert set(cluster.states(training).values()) == {"COMPLETED"}

    first, second = Job(cluster, f"{training}_0", preempted.path), Job(cluster, f"{training}_1", undisturbed.path)
    taken = int(first.log.split("interrupted at step ")[1].split()[0])
    assert 5 <= taken < STEPS
    assert f"interrupted at step {taken} of {STEPS}; to resume it, repeat the command" in first.log
    records = [r for r in first.records if r["stage"] == "train"]
    assert [(r["restart"], r.get("status")) for r in records] == [(0, None), (0, 75), (1, None), (1, 0)]
    assert [r.get("status") for r in second.records if r["stage"] == "train"] == [None, 0]
    assert same_bits(preempted, undisturbed)
    same_trajectory(undisturbed.path, preempted.path)

    records = [r for r in first.records if r["stage"] == "evaluate"]
    assert [(r["restart"], r.get("status")) for r in records] == [(0, None), (0, 138), (1, None), (1, 0)]
    answered = [
        {line["id"]: line["response"] for line in read_jsonl(run.evaluation / "mini_vsil" / "responses.jsonl")}
        for run in (preempted, undisturbed)
    ]
    assert len(answered[0]) == 6
    assert answered[0] == answered[1]
    assert "Evaluation of" in (preempted.path / "evaluate.log").read_text()


@pytest.mark.long
def test_two_nodes_train_one_run_that_goes_on_when_one_of_them_is_lost(cluster, tiny, tmp_path):
    run = RunFolder(tmp_path / "run")
    settings = ["train.max_steps=60", "train.save_steps=4", "evaluate.benchmark=[]", "launch.config=cpu"]
    job = Job(cluster, cluster.submit("--nodes=2", TRAIN, *arguments(tiny("llava"), run.path, *settings)), run.path)
    cluster.wait(run.last_checkpoint, "a checkpoint")
    lost = cluster.details(job.id)["BatchHost"]
    cluster.fail_node(lost)
    assert cluster.wait_until_ended(job.id) == {job.id: "COMPLETED"}
    cluster.start_node(lost)
    assert [(r["restart"], r.get("status")) for r in job.records] == [(0, None), (1, None), (1, 0)]
    nodes = [r["nodes"] for r in job.records if "began" in r]
    assert lost in cluster.call("scontrol", "show", "hostnames", nodes[0]).split()
    assert lost not in cluster.call("scontrol", "show", "hostnames", nodes[1]).split()
    manifest = run.manifest()
    assert (manifest["status"], manifest["steps"]) == ("finished", 60)
    assert (manifest["world_size"], manifest["distributed_type"]) == (2, "MULTI_CPU")
    assert [json.loads(line)["step"] for line in run.steps_file.open()] == list(range(1, 61))
