"""Several processes give the answers of one; one that ends is an error, and none stays behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from PIL import Image

from align.answering import local_model
from align.answering.local_model import LocalModel
from align.data.images import encode_png
from align.errors import UserError
from align.models.loading import ModelSource
from align.rows import ImageRef, Row
from align.settings import Generation, ModelSettings
from tests.support.launch import ENVIRONMENT, ROOT
from tests.support.mixed_rows import mixed_rows


def model(tiny, family="llava", **settings) -> LocalModel:
    source = ModelSource(ModelSettings(name="tiny", path=str(tiny(family)), dtype="float32"))
    return LocalModel(source, Generation(**settings))


def ended(processes, seconds=30) -> bool:
    """Whether all of these process ids are gone within a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in processes):
            return True
        time.sleep(0.1)
    return False


def answered(model, rows):
    return {answer.id: (answer.response, answer.finish_reason, answer.new_tokens) for answer in model.answers(rows)}


def children() -> list[int]:
    return sorted(child.pid for child in multiprocessing.active_children())


def hear(answers, came, kill=None):
    """Note who is answered, and after the third answer end a process."""
    for answer in answers:
        came.append(answer.id)
        if kill and len(came) == 3:
            os.kill(kill, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_answer_as_one_and_one_that_is_killed_is_named(tiny, monkeypatch):
    rows, came = mixed_rows(1), []
    alone = answered(model(tiny, max_new_tokens=6), rows)
    two = model(tiny, max_new_tokens=6, num_processes=2)
    monkeypatch.setattr(local_model, "load_on", None)  # this process loads nothing
    assert answered(two, rows) == alone
    processes = children()
    assert len(processes) == 2
    # The same two answer the next set, even one of a single row.
    assert answered(two, rows[:1]) == {rows[0].id: alone[rows[0].id]}
    assert children() == processes
    many = [Row(f"row {i}", "knife " * (i % 40)) for i in range(2000)]
    expected = r"process [12] of 2 that generate responses \(on cpu\) ended: it was ended by the signal SIGKILL"
    with pytest.raises(UserError, match=expected):
        hear(two.answers(many), came, kill=processes[0])
    assert 3 <= len(came) == len(set(came)) < len(many)
    assert ended(processes)


@pytest.mark.long
@pytest.mark.slow
def test_drawn_answers_are_those_of_one_process_too_and_after_a_release_they_are_started_anew(tiny, family_name):
    rows, drawn = mixed_rows(1), {"max_new_tokens": 6, "do_sample": True, "seed": 2}
    alone = answered(model(tiny, family_name, **drawn), rows)
    three = model(tiny, family_name, **drawn, num_processes=3)
    assert answered(three, rows) == alone
    processes = children()
    three.release()
    assert len(processes) == 3
    assert ended(processes)
    assert answered(three, rows) == alone
    three.release()
    assert children() == []


@pytest.mark.slow
@pytest.mark.long
def test_what_a_process_has_to_say_to_the_user_is_said_after_the_answers_that_came(tiny):
    two, came = model(tiny, max_new_tokens=2, num_processes=2, batch_size=1), []
    whole = encode_png(Image.new("RGB", (300, 300), "red")).bytes
    broken = Row("broken", "a", images=(ImageRef(bytes=whole[:-60]),))  # its header is right: only decoding shows it
    with pytest.raises(UserError, match="row broken"):
        hear(two.answers([*mixed_rows(1)[:4], broken]), came)
    assert len(came) >= 1
    assert children() == []


@pytest.mark.long
@pytest.mark.slow
def test_an_error_that_nobody_explained_is_named_with_its_process(tiny, capfd):
    two = model(tiny, max_new_tokens=2, num_processes=2, batch_size=0)
    with pytest.raises(UserError, match=r"process [12] of 2 .* ended: ValueError: range\(\) arg 3 must not be zero"):
        list(two.answers(mixed_rows(1)[:4]))
    assert "Traceback" in capfd.readouterr().err
    assert children() == []


@pytest.mark.long
@pytest.mark.slow
def test_sets_that_are_not_heard_to_the_end_leave_nothing_for_the_next(tiny):
    rows, two = mixed_rows(1), model(tiny, max_new_tokens=4, num_processes=2)
    answers = two.answers(rows)
    next(answers)
    answers.close()
    other = [Row(f"other {i}", "knife") for i in range(4)]
    assert sorted(answered(two, other)) == [row.id for row in other]
    two.release()


SCRIPT = """
import multiprocessing, sys
from align.answering.local_model import LocalModel
from align.models.loading import ModelSource
from align.rows import ImageRef, Row
from align.settings import Generation, ModelSettings
model = LocalModel(ModelSource(ModelSettings(path=sys.argv[1])), Generation(num_processes=2, max_new_tokens=1000, batch_size=300))
list(model.answers([Row("one", "knife"), Row("two", "cup")]))
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
list(model.answers([Row(str(i), "knife") for i in range(600)]))
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_its_parent(tiny, number):
    """Killed while its children are in the middle of a batch that takes a minute, and send nothing meanwhile."""
    command = [sys.executable, "-c", SCRIPT, str(tiny("llava"))]
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as parent:
        processes = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(processes) == 2
        used = [process.cpu_times().user for process in processes]
        while any(process.cpu_times().user < before + 1 for process, before in zip(processes, used, strict=True)):
            assert parent.poll() is None
            time.sleep(0.1)
        parent.send_signal(number)
        parent.wait(30)
    assert ended([process.pid for process in processes], seconds=10)
