"""slurm/train.sh on a real SLURM: what comes back after which end, and what it was given. Something
that ends as `align train` does takes its place; tests/slurm/test_runs.py has the real one.
"""

import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.launch import ROOT
from tests.support.slurm_cluster import Cluster, ids

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

TRAIN, EVALUATE, JUDGE = (ROOT / "slurm" / f"{name}.sh" for name in ("train", "evaluate", "judge"))
STAND_IN = f"{sys.executable} {ROOT / 'tests' / 'support' / 'asked_to_stop.py'}"


@dataclass
class Job:
    """A job with a folder of its own."""

    cluster: Cluster
    id: str
    folder: Path
    stage: str = "train"

    @property
    def log(self) -> str:
        file = self.folder / f"{self.stage}.log"
        return file.read_text(errors="replace") if file.is_file() else ""  # nodes write at once

    @property
    def goes(self) -> list[dict]:
        """What the stand-in was given, each time and on each node."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    @property
    def records(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "jobs.jsonl").open()]

    def wait_until_it_works(self, restart: int = 0) -> None:
        self.cluster.wait(lambda: any(go["restart"] == restart for go in self.goes), f"job {self.id}, go {restart}")

    def ended(self, restart: int) -> int | None:
        """The status with which a go ended, None where no end is recorded."""
        [began] = [r for r in self.records if r["restart"] == restart and "began" in r]
        assert (began["stage"], began["job"]) == (self.stage, self.id)
        assert re.match(r"127\.0\.1\.", began["nodes"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", began["began"])
        ends = [r for r in self.records if r["restart"] == restart and "ended" in r]
        assert len(ends) <= 1
        return ends[0]["status"] if ends else None


@pytest.fixture
def submit(cluster, tmp_path):
    """A function: options of sbatch, environment -> a job of train.sh, or of another script, with the stand-in."""

    def one(*options: str, script: Path = TRAIN, words: tuple[str, ...] = (), stage: str = "train", **environment: str):
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        key = "output_dir" if stage == "train" else "run"
        environment = {"ALIGN": STAND_IN} | environment
        return Job(cluster, cluster.submit(*options, script, f"{key}={folder}", *words, **environment), folder, stage)

    return one


def test_a_run_that_was_interrupted_comes_back_and_one_that_was_cancelled_or_failed_does_not(cluster, submit):
    asked, everything = submit(), submit()  # the second with a signal to the script itself, too
    cancelled = submit()
    enough = submit(MAX_REQUEUES="0")
    failed = submit(ENDS="1")
    low, gentle = submit("--partition=low", "--exclusive"), submit("--partition=gentle", "--exclusive")
    slow = submit("--partition=gentle", "--exclusive", SAVING="100")
    killed = submit("--exclusive")  # its node is lost, and no other job with it
    jobs = [asked, everything, cancelled, enough, failed, low, gentle, slow, killed]
    for job in jobs:
        job.wait_until_it_works()
    for job in (asked, enough, failed):
        cluster.call("scancel", "--signal=USR1", job.id)
    cluster.call("scancel", "--full", "--signal=USR1", everything.id)
    cluster.call("scancel", cancelled.id)
    urgent = []
    for job in (low, gentle, slow):
        node = f"--nodelist={cluster.details(job.id)['NodeList']}"
        urgent.append(cluster.submit("--partition=high", "--exclusive", node, "--wrap", "sleep 1"))
    lost = cluster.details(killed.id)["BatchHost"]
    cluster.fail_node(lost)
    for job in jobs:
        cluster.wait_until_ended(job.id)
    cluster.start_node(lost)
    last = {job.id: cluster.state(job.id) for job in jobs}

    back = [asked, everything, low, gentle, slow, killed]
    assert {last[job.id] for job in back} == {"COMPLETED"}, cluster.logs()
    assert [last[job.id] for job in (cancelled, enough, failed)] == ["CANCELLED", "FAILED", "FAILED"]
    for job in back:
        assert [go["restart"] for go in job.goes] == [0, 1], job.log
        assert job.ended(1) == 0
    for job in (asked, everything, gentle):
        assert job.ended(0) == 75
    assert low.ended(0) in (75, 143)  # without grace srun is signalled too, and may be gone before the step
    assert "stopped by SIGUSR1" in asked.log
    assert "stopped by SIGTERM" in gentle.log
    assert slow.ended(0) not in (0, 75)  # killed while it saved
    assert killed.ended(0) is None  # nobody was left to write it
    for job in (cancelled, enough, failed):
        assert [go["restart"] for go in job.goes] == [0]
    assert cancelled.ended(0) == 75
    assert "left to SLURM, which has ended the job (COMPLETING None)" in cancelled.log
    assert "not requeued: it has come back 0 times (MAX_REQUEUES)" in enough.log
    assert failed.ended(0) == 1


def test_when_one_node_ends_the_others_are_ended_and_the_job_has_failed(cluster, submit):
    job = submit("--nodes=2", BROKEN_NODE="1", SLURM_WAIT="2")
    assert cluster.wait_until_ended(job.id) == {job.id: "FAILED"}
    assert {go["node"] for go in job.goes} == {0, 1}
    assert job.ended(0) not in (0, 75)


def test_what_each_node_is_given(cluster, submit):
    job = submit("--nodes=2", "--gpus-per-node=8", "--cpus-per-task=2", words=("a b", "$HOME"), SAVING="0,8")
    job.wait_until_it_works()
    cluster.wait(lambda: len(job.goes) == 2, "both nodes")
    cluster.call("scancel", "--signal=USR1", job.id)
    cluster.wait_until_ended(job.id)
    port = 10000 + int(job.id) % 20000
    nodes = cluster.call("scontrol", "show", "hostnames", job.records[0]["nodes"]).split()
    for go in job.goes[:2]:
        expected = ["train", f"output_dir={job.folder}", "a b", "$HOME", "evaluate_afterwards=false"]
        expected += [f"launch.main_process_port={port}", "launch.num_machines=2", f"launch.main_process_ip={nodes[0]}"]
        assert go["words"] == [*expected, f"launch.machine_rank={go['node']}"]
        assert go["gpus"] == "0,1,2,3,4,5,6,7"
    assert {go["node"] for go in job.goes[:2]} == {0, 1}
    assert job.ended(0) == 75  # the second node had its time, though the first had ended longer ago than KillWait
    assert job.ended(1) == 0


def test_an_element_of_an_array_has_the_arguments_of_its_line(cluster, tmp_path):
    folders = [tmp_path / "plain", tmp_path / "with a space, and 'quotes'"]
    lines = [
        shlex.join(["seed=0", f"output_dir={folders[0]}"]),
        shlex.join([f"output_dir={folders[1]}", "x={a: [1, 2]}"]),
    ]
    file = tmp_path / "runs.txt"
    file.write_text("\n".join(lines) + "\n")
    array = cluster.submit("--array=0-2%2", TRAIN, file, ALIGN=STAND_IN)
    jobs = [Job(cluster, f"{array}_{index}", folder) for index, folder in enumerate(folders)]
    for job in jobs:
        job.wait_until_it_works()
        cluster.call("scancel", "--signal=USR1", job.id)
    last = cluster.wait_until_ended(array)
    assert (ids(last, "COMPLETED"), ids(last, "FAILED")) == ({0, 1}, {2})
    assert cluster.details(f"{array}_2")["ExitCode"] == "2:0"
    assert f"error: element 2 of the array needs line 3 of {file}, which is not there" in cluster.output(f"{array}_2")
    for job in jobs:
        assert [go["restart"] for go in job.goes] == [0, 1]
        assert [job.ended(0), job.ended(1)] == [75, 0]
    assert jobs[0].goes[0]["words"][1:3] == ["seed=0", f"output_dir={folders[0]}"]
    assert jobs[1].goes[0]["words"][1:3] == [f"output_dir={folders[1]}", "x={a: [1, 2]}"]
    ports = {next(word for word in job.goes[0]["words"] if "port=" in word) for job in jobs}
    assert len(ports) == 2


def test_elements_that_wait_for_an_element_wait_for_it_until_it_has_come_back(cluster, tmp_path):
    """What `align sweep` builds on: an evaluation by --dependency=aftercorr."""
    folders = [tmp_path / name for name in ("asked", "preempted", "failed")]
    file = tmp_path / "runs.txt"
    file.write_text("".join(f"output_dir={folder}\n" for folder in folders))
    array = cluster.submit("--array=0-2", "--partition=low", "--exclusive", TRAIN, file, ALIGN=STAND_IN)
    after = ["--array=0-2", f"--dependency=aftercorr:{array}", "--kill-on-invalid-dep=yes"]
    waiting = cluster.submit(*after, "--wrap", "true")
    jobs = [Job(cluster, f"{array}_{index}", folder) for index, folder in enumerate(folders)]
    for job in jobs:
        job.wait_until_it_works()
    cluster.call("scancel", "--signal=USR1", jobs[0].id)
    node = f"--nodelist={cluster.details(jobs[1].id)['NodeList']}"
    cluster.submit("--partition=high", "--exclusive", node, "--wrap", "sleep 1")
    cluster.call("scancel", jobs[2].id)
    cluster.wait(lambda: ids(cluster.states(array), "PENDING") == {0, 1}, "both requeued")
    assert ids(cluster.states(waiting), "PENDING") >= {0, 1}
    assert cluster.wait_until_ended(waiting) == dict(
        zip((f"{waiting}_{index}" for index in range(3)), ("COMPLETED", "COMPLETED", "CANCELLED"), strict=True)
    )
    assert [job.ended(1) for job in jobs[:2]] == [0, 0]


@pytest.mark.long
def test_a_run_that_reaches_its_time_limit_comes_back(cluster, submit):
    told = submit("--time=1", "--signal=USR1@45")
    untold = submit("--time=1", "--signal=USR1@0")
    for job in (told, untold):
        assert cluster.wait_until_ended(job.id, 240) == {job.id: "COMPLETED"}
        assert [job.ended(0), job.ended(1)] == [75, 0]
    assert "stopped by SIGUSR1" in told.log
    assert "stopped by SIGTERM" in untold.log


def test_an_evaluation_that_a_signal_ends_comes_back(cluster, submit):
    jobs = [submit(script=EVALUATE, stage="evaluate", ENDS=status) for status in ("75", "138", "143", "137")]
    for job in jobs:
        job.wait_until_it_works()
        assert job.goes[0]["words"] == ["eval", f"run={job.folder}"]
        cluster.call("scancel", "--signal=USR1", job.id)
    last = [cluster.wait_until_ended(job.id)[job.id] for job in jobs]
    assert last == ["COMPLETED", "COMPLETED", "COMPLETED", "FAILED"]
    assert [job.ended(0) for job in jobs] == [75, 138, 143, 137]


def test_an_evaluation_waits_for_the_judge_that_it_is_to_ask(cluster, submit, tmp_path):
    address = tmp_path / "judge.address"
    address.write_text("http://127.0.0.1:9\n")  # of a judge that is gone
    patient = submit(script=EVALUATE, stage="evaluate", JUDGE_ADDRESS=str(address), ENDS="0")
    impatient = submit(script=EVALUATE, stage="evaluate", JUDGE_ADDRESS=str(tmp_path / "none"), JUDGE_PATIENCE="1")
    knows = submit(
        script=EVALUATE, stage="evaluate", words=("judge.base_url=x",), JUDGE_ADDRESS=str(tmp_path / "none"), ENDS="0"
    )
    stopped = submit(script=EVALUATE, stage="evaluate", JUDGE_ADDRESS=str(tmp_path / "none"))
    knows.wait_until_it_works()
    assert knows.goes[0]["words"] == ["eval", f"run={knows.folder}", "judge.base_url=x"]
    cluster.call("scancel", "--signal=USR1", knows.id)
    assert cluster.wait_until_ended(impatient.id) == {impatient.id: "FAILED"}
    assert f"error: no judge server answers after 1 s (JUDGE_PATIENCE); {tmp_path / 'none'} holds ''" in impatient.log
    assert (patient.goes, stopped.goes) == ([], [])
    cluster.call("scancel", "--signal=USR1", "--batch", stopped.id)
    cluster.wait(lambda: stopped.ended(0) is not None, "the end of a wait")
    assert stopped.ended(0) == 143
    cluster.call("scancel", stopped.id)

    served = tmp_path / "served"
    served.mkdir()
    (served / "health").touch()
    server = f"sleep 1; cd {served}; exec {sys.executable} -m http.server --bind 0.0.0.0 $PORT"
    judge = cluster.submit(JUDGE, JUDGE_ADDRESS=str(address), JUDGE_COMMAND=server)
    patient.wait_until_it_works()
    url = f"http://{cluster.details(judge)['BatchHost']}:{10000 + int(judge) % 20000}"
    assert address.read_text() == f"{url}\n"
    assert patient.goes[0]["words"] == ["eval", f"run={patient.folder}", f"judge.base_url={url}/v1"]
    cluster.call("scancel", judge, patient.id)
    assert cluster.wait_until_ended(judge) == {judge: "CANCELLED"}
    assert not address.exists()


def test_a_judge_that_ends_ends_its_job_with_its_status(cluster, tmp_path):
    judge = cluster.submit(JUDGE, JUDGE_ADDRESS=str(tmp_path / "address"), JUDGE_COMMAND="exit 3")
    assert cluster.wait_until_ended(judge) == {judge: "FAILED"}
    assert cluster.details(judge)["ExitCode"] == "3:0"
    assert not (tmp_path / "address").exists()


def test_a_later_line_of_sbatch_settings_overrides_an_earlier_one(cluster, tmp_path):
    """What `align sweep` builds on when it adds lines of its own."""
    marker = "# --- lines of your cluster: modules, environment, container ---\n"
    script = TRAIN.read_text()
    assert script.count(marker) == 1
    mine = "#SBATCH --job-name=mine\n#SBATCH --nodes=2\n" + marker + "export ALIGN=echo\n"
    (tmp_path / "mine.sh").write_text(script.replace(marker, mine))
    job = cluster.submit(tmp_path / "mine.sh", "seed=1")
    assert cluster.wait_until_ended(job) == {job: "COMPLETED"}
    assert (cluster.details(job)["JobName"], cluster.details(job)["NumNodes"]) == ("mine", "2")
    assert cluster.output(job).count("train seed=1 evaluate_afterwards=false") == 2
