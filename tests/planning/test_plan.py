"""`align plan`: from a configuration to parameters, steps, memory and hours, by the run's own arithmetic."""

import json
import re
import socket
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from huggingface_hub import constants
from PIL import Image

from align.batches.rendering import Renderer
from align.cli import main
from align.config.compose import compose_run
from align.config.files import available
from align.data.images import encode_png
from align.errors import UserError
from align.families import family_of
from align.models.processors import load_processor
from align.planning.estimate import PEAKS, estimate
from align.planning.flops import flops
from align.planning.images import image_tokens
from align.planning.layers import matrices
from align.planning.skeleton import NAMED, SHIPPED, bare, skeleton
from align.planning.step import arguments_of, rows_of, steps_of
from align.rows import Row
from align.settings import ModelSettings, PlanSettings
from align.training.dry_run import show
from tests.conftest import REAL
from tests.support.full_size import MODELS, write
from tests.support.small_run import arguments


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("configs")))


@cache
def made(configs, *words, gpus=(1, 4, 8), **assumed):
    return estimate(compose_run(words), PlanSettings(configs=configs, gpus=list(gpus), **assumed))


def plan(configs, *words, gpus=(1, 4, 8), **assumed):
    return made(configs, *words, gpus=tuple(gpus), **assumed)


@pytest.mark.slow
def test_recipes_on_models_are_a_table(configs, capsys):
    words = ["model=llava_7b,qwen2_vl_2b", "recipe=t_sft,mm_dpo", f"plan.configs={configs}", "plan.gpus=1,8"]
    assert main(["plan", *words, "plan.format=md"]) == 0
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if "|" in line
    ]
    assert [line[:2] for line in lines[2:]] == [
        ["llava_7b", "t_sft"],
        ["llava_7b", "mm_dpo"],
        ["qwen2_vl_2b", "t_sft"],
        ["qwen2_vl_2b", "mm_dpo"],
    ]
    assert {len(line) for line in lines} == {9}
    assert lines[2][2] == "320M of 7,383M"


def test_json_holds_every_part(configs, capsys, tmp_path):
    words = ["recipe=mm_sft", "model=llava_7b_full", f"plan.configs={configs}", "plan.format=json"]
    assert main(["plan", *words, f"plan.output={tmp_path / 'plan.json'}"]) == 0
    assert capsys.readouterr().out == ""
    (run,) = json.loads((tmp_path / "plan.json").read_text())["runs"]
    assert run["steps"] == 24 * 3  # 2,977 rows in steps of 128, three epochs
    assert run["step"]["image"] == {"patches": 577, "tokens": 576}
    assert run["parameters"]["vision_tower"]["trainable"] == 0
    eight = run["gpus"][2]
    assert (eight["gpus"], eight["per_device_train_batch_size"], eight["gradient_accumulation_steps"]) == (8, 4, 4)
    for parts in eight["memory_gib"].values():
        assert sum(size for part, size in parts.items() if part != "total") == pytest.approx(parts["total"], abs=0.05)


def test_what_is_not_a_terminal_is_not_cut_to_its_width(configs, capsys):
    assert main(["plan", "recipe=mm_sft", "model=qwen2_vl_2b", f"plan.configs={configs}", "plan.gpus=8"]) == 0
    shown = capsys.readouterr().out
    assert all(
        word in shown
        for word in ("zero3", "activations", "qwen2_vl_2b: 391 tokens", "2,977 rows, 72 steps", "FLOPs of a step")
    )


def test_what_is_divided_among_gpus(configs):
    """Full fine-tuning of LLaVA-1.5-7B: 16 bytes for each trained weight, of which ZeRO-2 divides 14 and ZeRO-3 all."""
    words = ["recipe=mm_sft", "model=llava_7b_full"]
    one, eight = plan(configs, *words, gpus=[1, 8]).launched
    trained, frozen = 7_063_427_072 - 303_507_456, 303_507_456
    zero2, zero3 = eight.memory["zero2"], eight.memory["zero3"]
    assert (zero2.weights, zero2.gradients, zero2.optimizer) == (
        2 * (trained + frozen),
        2 * trained / 8,
        12 * trained / 8,
    )
    assert (zero3.weights, zero3.gradients, zero3.optimizer) == (
        2 * (trained + frozen) / 8,
        2 * trained / 8,
        12 * trained / 8,
    )
    assert (list(one.memory), list(eight.memory)) == (
        ["zero2"],
        ["zero2", "zero3"],
    )  # 16-bit weights are refused under ddp
    whole, shared = (it.memory["ddp"] for it in plan(configs, *words, "model.dtype=float32", gpus=[1, 8]).launched)
    for of in (whole, shared):
        assert (of.weights, of.gradients, of.optimizer) == (4 * (trained + frozen), 4 * trained, 8 * trained)
    assert (whole.buffers, shared.buffers) == (0, 4 * trained)


def test_the_reference_of_full_fine_tuning_is_a_second_model(configs):
    def reference(*words):
        return plan(configs, *words, gpus=[8]).launched[0].memory

    full = reference("recipe=mm_dpo", "model=llava_7b_full")
    assert (full["zero2"].reference, full["zero3"].reference) == (2 * 7_063_427_072, 2 * 7_063_427_072 / 8)
    assert reference("recipe=mm_dpo", "model=llava_7b")["ddp"].reference == 0  # the adapter switched off
    assert reference("recipe=mm_sft", "model=llava_7b_full")["zero2"].reference == 0


def test_nf4_holds_the_matrices_of_the_language_model_in_4_bits(configs):
    words = ["recipe=mm_sft", "model=llava_7b", "model.quantization=nf4"]
    it = plan(configs, *words, gpus=[8]).launched[0].memory
    matrices = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    adapter = 319_815_680
    assert it["ddp"].weights == pytest.approx(matrices * 4.127 / 8 + (7_063_427_072 - matrices + adapter) * 2, rel=1e-4)
    assert it["ddp"].optimizer == adapter * 4  # trl keeps it in bfloat16
    assert "zero3" not in it


def test_hours_are_flops_over_what_the_gpus_reach(configs):
    it = plan(configs, "recipe=mm_dpo", "model=llava_7b", gpus=[4], utilization=0.4)
    for gpu, peak in PEAKS.items():
        assert it.launched[0].hours[gpu] == pytest.approx(it.flops.total * it.steps / (4 * peak * 0.4) / 3600)
    # A rough check of the whole: forward, again, and gradients of activations alone (2 N each), and
    # the reference (2 N).
    tokens = 128 * it.step.policy.length
    assert it.flops.total == pytest.approx(8 * 6.9e9 * tokens, rel=0.1)


def test_fits_names_the_first_launch_with_room(configs):
    words = ["recipe=mm_dpo", "model=llava_13b_full"]
    assert [it.fits for it in plan(configs, *words).launched] == [None, "zero3", "zero2"]
    assert [it.fits for it in plan(configs, *words, memory=139.0).launched] == [None, "zero2", "zero2"]


@pytest.mark.parametrize(
    ("trained", "checkpointing", "reached"),
    [([], True, 0), ([], False, 0), (["trainable=multi_modal_projector"], True, 4 * 32)],
)
def test_frozen_towers_are_passed_backward_only_with_a_trained_part_and_checkpointing(
    configs, trained, checkpointing, reached
):
    """Transformers lets gradients begin at every tower's embeddings there; runs shut them out where
    nothing that encodes is trained.
    """
    it = skeleton(compose_run(["recipe=mm_sft", "model=qwen2_vl_2b", *trained]), True, configs)
    found = [m for m in matrices(it, checkpointing) if m.tower == "vision_tower" and m.reached]
    assert len(found) == reached


@pytest.mark.parametrize(
    ("model", "share"),
    [("llava_7b", 0.02), pytest.param("qwen2_vl_7b", 0.14, marks=pytest.mark.slow), ("qwen2_vl_2b", 0.36)],
)
def test_what_that_spares(configs, model, share):
    it = skeleton(compose_run(["recipe=mm_sft", f"model={model}"]), True, configs)
    step = plan(configs, "recipe=mm_sft", f"model={model}").step
    found = matrices(it, checkpointing=True)
    passed = [
        replace(m, reached=True, input_gradient=True) if m.tower == "vision_tower" and m.layer else m for m in found
    ]
    spared = 1 - flops(found, step, checkpointing=True).total / flops(passed, step, checkpointing=True).total
    assert spared == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize("method", ["sft", "dpo", "unlearning"])
def test_steps_are_those_of_the_run(tiny, tmp_path, capsys, method):
    data = ["data.benign.rows=22", "train.max_steps=-1", "train.num_train_epochs=2.5"]
    composed = compose_run(arguments(tiny("llava"), tmp_path, f"method={method}", *data))
    rows = rows_of(composed.config)
    assert rows.total == 46
    assert rows.share_with_images("harmful") == 1
    assert rows.share_with_images("benign") == 0
    show(composed)
    printed = int(re.search(r"Steps: (\d+),", capsys.readouterr().out).group(1))
    assert steps_of(composed, rows, arguments_of(composed, 1)) == printed == 15  # ceil(2.5 x 6)


def test_rows_are_counted_where_they_are_not_said(configs, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"Question {i}?", "response": "Yes."}) + "\n" for i in range(300)))
    part = f"data.benign={{source: local, path: {file}, role: benign}}"
    words = ["recipe=t_sft", "model=llava_7b", "data.harmful=null", part]
    assert plan(configs, *words).steps == 2 * 3
    with pytest.raises(UserError, match=r"number and role of the rows of data.harmful .* data.harmful.rows=<number>"):
        plan(configs, "recipe=t_sft", "model=llava_7b", "data.harmful.rows=null")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe=mm_sft", "global_batch_size=12"], "global_batch_size=12 over 4 processes gives 3 rows each"),
        (["recipe=mm_sft", "train.max_length=512"], "longer than train.max_length=512"),
        (["recipe=mm_sft", "train.optim=adafactor"], "train.optim=adafactor: "),
        (["recipe=mm_sft", "lora.target_modules=qq_proj"], "'qq_proj'] match no linear layer of language_model"),
        (["recipe=t_sft", "trainable=multi_modal_projector"], "trainable names multi_modal_projector, but none"),
        (["recipe=mm_sft", "model.quantization=nf3"], "model.quantization=nf3: expected one of nf4, int8"),
        (["recipe=mm_unlearning", "data.benign=null"], "needs harmful and benign rows, but no row is benign"),
        (["recipe=mm_sft", "train.learning_rat=1"], "train.learning_rat"),
        (["recipe=mm_sft", "plan.image=large"], "plan.image=large: expected <width>x<height>"),
        (["recipe=mm_sft", "plan.utilization=2"], "plan.utilization=2.0: expected a share"),
        (["recipe=mm_sft", "plan.format=csv"], "plan.format=csv: expected one of md, json"),
    ],
)
def test_what_cannot_be_planned_says_why(configs, capsys, words, message):
    assert main(["plan", "model=llava_7b", f"plan.configs={configs}", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_model_without_configuration_says_what_to_do(tmp_path, capsys):
    assert main(["plan", "recipe=mm_sft", "model=llava_7b", f"model.path={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert f"cannot read its config.json from {tmp_path}" in said
    assert "model.path=<folder with config.json>" in said


@pytest.mark.parametrize("size", ["640x480", "100x900", "30x30"])
def test_image_tokens_are_those_of_the_real_processor(configs, family_name, shared, size):
    folder = {"llava": "llava-1.5-7b-hf", "qwen2_vl": "Qwen2-VL-7B-Instruct"}[family_name]
    config = bare(ModelSettings(path=f"{configs}/{folder}")).config
    renderer = Renderer(load_processor(str(shared / "hub" / REAL[family_name])), family_of(family_name))
    width, height = map(int, size.split("x"))
    row = Row("row", "What?", images=(encode_png(Image.new("RGB", (width, height))),))
    tokens = renderer.render(row).prompt_ids.count(renderer.image_token_id)
    assert image_tokens(config, ModelSettings(), size).tokens == tokens


TABLE = [
    "model=llava_7b,llava_7b_full,llava_13b,llava_13b_full,qwen2_vl_2b,qwen2_vl_7b,qwen2_vl_7b_full",
    "recipe=t_sft,mm_sft,t_dpo,mm_dpo,t_unlearning,mm_unlearning,t_safe_unlearning,mm_safe_unlearning",
]


@pytest.mark.long
@pytest.mark.slow
def test_the_table_of_the_documentation_is_what_the_command_prints(configs, capsys):
    docs = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert all(word in docs for word in TABLE), "the command above the table is another one"
    assert main(["plan", *TABLE, f"plan.configs={configs}", "plan.format=md"]) == 0
    assert capsys.readouterr().out in docs, "make the table anew with the command above it"


def test_the_shipped_models_are_planned_without_a_network(tmp_path, monkeypatch, capsys):
    def unreachable(*_):
        raise AssertionError("a plan asked the network")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    models = ["llava_7b", "qwen2_vl_2b", "qwen2_5_vl_7b", "qwen3_vl_4b"]
    rows = [f"data.{part}.rows=1000" for part in ("harmful", "benign")]
    assert main(["plan", "recipe=mm_sft", f"model={','.join(models)}", "plan.format=json", *rows]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["model"] for run in runs] == models
    of_7b = runs[0]["parameters"].values()
    assert sum(of["all"] - of["trainable"] for of in of_7b) == 7_063_427_072  # half the bytes of its published index
    assert {path.rpartition("/")[2] for path in NAMED} == {path.name for path in SHIPPED.iterdir()}
    paths = {compose_run(["recipe=mm_sft", f"model={model}"]).config.model.path for model in available("models")}
    assert set(NAMED) <= paths


def test_shipped_configurations_are_those_that_the_tests_plan(tmp_path):
    for name, config in MODELS.items():
        config().save_pretrained(tmp_path)
        written, shipped = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, SHIPPED / name))
        del written["transformers_version"], shipped["transformers_version"]
        assert written == shipped
