"""With vLLM itself (`make vllm-venv`): its responses are those of transformers, and each known trap is closed."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from align.answering.conversation import Request, Turn
from align.answering.engines import model_on_this_machine
from align.answering.vllm.served_chat import ServedChat
from align.data.images import encode_png
from align.errors import UserError
from align.miniature.bases import mini_qwen2_vl
from align.models.loading import ModelSource
from align.models.processors import load_processor
from align.rows import Row
from align.settings import Generation, JudgeSettings, ModelSettings, Vllm, VllmProcess
from tests.answering.vllm.test_model import answered
from tests.support.adapters import adapted, saved
from tests.support.launch import ENVIRONMENT, align, call, train_command
from tests.support.mixed_rows import mixed_rows
from tests.support.vllm_environments import REAL, command_lines

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.usefixtures("cache"),
    pytest.mark.timeout(1800),
    pytest.mark.skipif(REAL is None, reason="vLLM is not installed: `make vllm-venv`, or set VSIL_ALIGN_VLLM_PYTHON"),
]
SETS = "mini_vsil,mini_vsil_free,mini_benign,mini_twin,mini_ability"


@pytest.fixture
def servable(tiny, tmp_path):
    """A function: family -> the tiny model's folder with all files of a published processor."""

    def folder(family):
        found = tmp_path / f"servable-{family}"
        if not found.exists():
            shutil.copytree(tiny(family), found)
            load_processor(str(found)).save_pretrained(found)
        return found

    return folder


def through(source, **settings):
    vllm = Vllm(python=REAL, max_num_seqs=16, **settings)
    return model_on_this_machine(source, Generation(max_new_tokens=8, engine="vllm", vllm=vllm))


def evaluation(folder, family, *more):
    return [
        "eval", f"model=mini_{family}", f"benchmark={SETS}", "judge=rule", f"output_dir={folder}",
        "generation.max_new_tokens=20", *more,
    ]  # fmt: skip


def responses(folder):
    """{(benchmark, row): response} of an evaluation."""
    found = {}
    for file in Path(folder, "evaluation").glob("*/responses.jsonl"):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            kept = {key: record[key] for key in ("response", "finish_reason", "new_tokens", "prompt_hash")}
            assert (file.parent.name, record["id"]) not in found
            found[file.parent.name, record["id"]] = kept
    return found


def test_a_defence_of_several_passes_gives_what_it_gives_with_transformers(tmp_path):
    given = [*evaluation(tmp_path / "plain", "llava", "defence=ecso", "limit=15")]
    call(align(*given), tmp_path, timeout=600)
    engine = ["generation.engine=vllm", f"generation.vllm.python={REAL}", f"output_dir={tmp_path / 'vllm'}"]
    call(align(*given, *engine), tmp_path, timeout=600)
    expected, found = responses(tmp_path / "plain"), responses(tmp_path / "vllm")
    assert len(expected) == 90  # a pair of twins is two rows
    assert found == expected


def shared_memory():
    """What lies in shared memory, without semaphores of other programs."""
    return {file.name for file in Path("/dev/shm").iterdir() if not file.name.startswith("sem.")}


def test_a_thousand_responses_of_an_evaluation_are_those_of_transformers(family_name, tmp_path):
    call(align(*evaluation(tmp_path / "plain", family_name)), tmp_path, timeout=600)
    through_vllm = evaluation(
        tmp_path / "vllm", family_name, "generation.engine=vllm", f"generation.vllm.python={REAL}"
    )
    call(align(*through_vllm), tmp_path, timeout=600)
    expected, found = responses(tmp_path / "plain"), responses(tmp_path / "vllm")
    assert len(expected) == 1000
    assert found == expected
    settings = json.loads((tmp_path / "vllm" / "evaluation" / "mini_vsil" / "settings.json").read_text())
    assert settings["engine"]["vllm"]
    assert settings["agreement"]["largest"] <= settings["agreement"]["tolerance"]


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"towers": ["language_model", "vision_tower", "multi_modal_projector"], "target_modules": ["all-linear"]},
        {"use_dora": True},
    ],
)
def test_adapters_of_every_kind_have_their_effect(lora, loaded, servable, family_name, tmp_path):
    adapter = saved(adapted(loaded(family_name), **lora), tmp_path / "adapter")
    source = ModelSource(ModelSettings(name="tiny", path=str(servable(family_name)), dtype="float32"), str(adapter))
    rows = mixed_rows(2)
    expected = answered(model_on_this_machine(source, Generation(max_new_tokens=8)), rows)
    model = through(source)
    assert answered(model, rows) == expected
    assert model.agreement.identical == model.agreement.rows
    model.release()


def test_an_adapter_that_is_damaged_meanwhile_ends_in_an_error_and_leaves_nothing(loaded, servable, tmp_path):
    before = shared_memory()
    adapter = saved(adapted(loaded("llava")), tmp_path / "adapter")
    source = ModelSource(ModelSettings(name="tiny", path=str(servable("llava")), dtype="float32"), str(adapter))
    model = through(source, timeout=60)
    rows = mixed_rows(1)
    assert len(answered(model, rows[:2])) == 2
    model.release()
    content = (adapter / "adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(content[:-200])
    with pytest.raises(UserError):
        list(model.answers(rows))
    assert model._children is None
    assert ended()
    assert shared_memory() == before


@pytest.mark.timeout(3600)
def test_killed_at_ten_points_it_resumes_to_the_same_responses(tmp_path):
    before = shared_memory()
    call(align(*evaluation(tmp_path / "plain", "llava")), tmp_path, timeout=600)
    expected = responses(tmp_path / "plain")
    command = align(
        *evaluation(tmp_path / "vllm", "llava", "generation.engine=vllm", f"generation.vllm.python={REAL}"),
        "generation.vllm.max_num_seqs=8",
    )
    for point in range(10):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 600
        while stored(tmp_path / "vllm") < 95 * (point + 1):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert ended()
    assert stored(tmp_path / "vllm") < 1000
    last = call(command, tmp_path, timeout=600)
    assert last.returncode == 0, last.stderr
    assert responses(tmp_path / "vllm") == expected
    assert shared_memory() == before


def stored(folder):
    """How many responses an evaluation has stored."""
    return sum(file.read_text().count("\n") for file in folder.glob("evaluation/*/responses.jsonl"))


def ended(seconds=20):
    """Whether every engine ends in this time."""
    deadline = time.monotonic() + seconds
    while any("vllm/child.py" in line for line in command_lines()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_sampled_responses_depend_on_the_row_and_the_seed_alone(servable, tmp_path):
    source = ModelSource(ModelSettings(name="tiny", path=str(servable("llava")), dtype="float32"))
    rows = mixed_rows(1)
    found = []
    for seed, batch in ((0, 16), (0, 2), (1, 16)):
        vllm = Vllm(python=REAL, max_num_seqs=batch)
        generation = Generation(max_new_tokens=8, do_sample=True, seed=seed, engine="vllm", vllm=vllm)
        model = model_on_this_machine(source, generation)
        found.append(answered(model, rows))
        model.release()
    assert found[0] == found[1] != found[2]


def test_too_large_a_difference_stops_before_any_response(servable):
    source = ModelSource(ModelSettings(name="tiny", path=str(servable("llava")), dtype="float32"))
    model = through(source, tolerance=1e-12)
    with pytest.raises(UserError, match="1e-12"):
        list(model.answers(mixed_rows(1)))


def test_images_of_odd_sizes_are_read_alike(servable, family_name):
    sizes = [(30, 30), (31, 77), (200, 33), (640, 480)]
    rows = [
        Row(
            f"{width}x{height}",
            "what is it",
            images=(encode_png(Image.radial_gradient("L").resize((width, height)).convert("RGB")),),
        )
        for width, height in sizes
    ]
    source = ModelSource(ModelSettings(name="tiny", path=str(servable(family_name)), dtype="float32"))
    expected = answered(model_on_this_machine(source, Generation(max_new_tokens=8)), rows)
    model = through(source)
    assert answered(model, rows) == expected
    assert model.agreement.largest < 1e-4
    model.release()


def test_rollouts_are_sampled_from_the_policy_of_their_round(tmp_path):
    before = shared_memory()
    command = train_command(
        "recipe=mm_grpo", "model=mini_llava", f"output_dir={tmp_path}/run", "train.disable_tqdm=true",
        "evaluate_afterwards=false", "train.max_steps=3", "train.logging_steps=1", "train.rollout_engine=vllm",
        f"generation.vllm.python={REAL}", "global_batch_size=16", "start=null",
    )  # fmt: skip
    done = call(command, tmp_path, timeout=900, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "run").glob("log.jsonl")
    found = [json.loads(line).get("rollouts/vllm_difference") for line in log.read_text().splitlines()]
    differences = [one for one in found if one is not None]
    assert len(differences) == 3
    assert all(0 < one < 1e-4 for one in differences)
    assert ended()
    assert shared_memory() == before


def test_a_served_model_answers_with_a_key_and_ends(tmp_path):
    before = shared_memory()
    settings = JudgeSettings(serve=str(mini_qwen2_vl()), vllm=VllmProcess(python=REAL, extra={"max_model_len": 128}))
    chat = ServedChat(settings, "judge")
    requests = [Request(str(i), (Turn("user", "what is this"),), 8) for i in range(3)]
    replies = list(chat.replies(requests))
    chat.release()
    assert sorted(reply.id for reply in replies) == ["0", "1", "2"]
    assert {(reply.new_tokens, len({one.text for one in replies})) for reply in replies} == {(8, 1)}
    assert not any("vllm.entrypoints" in line for line in command_lines())
    assert shared_memory() == before
