"""What a run trains: which layers get an adapter, which towers are trained in full, and that
nothing else is touched.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from align.config.compose import compose_run
from align.data.assembly import training_data
from align.errors import UserError
from align.models.loading import load_checkpoint, parameters_per_tower, tower_line
from align.models.lora import target_modules
from align.models.merging import probe
from align.models.trainable import check_trainable, choose_trainable, modules_of
from align.run_folder import RunFolder
from align.settings import Lora, RunConfig
from align.training.build import build_run
from align.training.run import train
from tests.support.adapters import adapted, saved
from tests.support.small_run import arguments

PROJECTOR = {"llava": ["model.multi_modal_projector"], "qwen2_vl": ["model.visual.merger"]}
VISION_LAYER = {"llava": "out_proj", "qwen2_vl": "qkv"}


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [("q_proj", 3), ("self_attn.q_proj", 3), ("layers.0.self_attn.q_proj", 1), ("all-linear", 21)],
)
def test_a_pattern_is_the_end_of_a_dotted_name(loaded, family_name, pattern, matches):
    it = loaded(family_name)
    names = target_modules(it.model, it.family, Lora(target_modules=[pattern]))
    assert len(names) == matches
    assert all(name.startswith("model.language_model.") for name in names)


def test_a_pattern_is_whole_names(loaded):
    it = loaded("llava")
    with pytest.raises(UserError, match="'_proj' matches no linear layer"):
        target_modules(it.model, it.family, Lora(target_modules=["q_proj", "_proj"]))


def test_all_linear_reaches_the_towers_asked_for_and_never_the_head(loaded, family_name):
    it = loaded(family_name)
    towers = ["language_model", "multi_modal_projector"]
    names = target_modules(it.model, it.family, Lora(towers=towers, target_modules=["all-linear"]))
    assert {it.family.tower_of(name) for name in names} == set(towers)
    assert len(names) == 21 + 2


def test_a_pattern_may_be_of_one_tower_alone(loaded, family_name):
    """Both towers of LLaVA have a `q_proj`; Qwen2-VL's vision tower has a `qkv` and a `fc1`."""
    it, layer = loaded(family_name), {"llava": "q_proj", "qwen2_vl": "fc1"}[family_name]
    towers = ["language_model", "vision_tower"]

    def per_tower(*patterns):
        names = target_modules(it.model, it.family, Lora(towers=towers, target_modules=list(patterns)))
        assert len(names) == len(set(names))
        return {
            tower: {name.rpartition(".")[2] for name in names if it.family.tower_of(name) == tower} for tower in towers
        }

    assert per_tower("language_model:v_proj", f"vision_tower:{layer}") == {
        "language_model": {"v_proj"},
        "vision_tower": {layer},
    }
    # Beside a pattern for every tower that is asked for.
    both = per_tower("v_proj", "all-linear") if family_name == "llava" else per_tower("all-linear")
    some = per_tower("language_model:v_proj", "vision_tower:all-linear")
    assert some == {"language_model": {"v_proj"}, "vision_tower": both["vision_tower"]}


def test_a_pattern_of_one_tower_is_said_on_the_command_line(tiny, tmp_path):
    words = ["lora.towers=language_model,vision_tower", "lora.target_modules=v_proj,vision_tower:fc1,vision_tower:fc2"]
    lora = compose_run(arguments(tiny("llava"), tmp_path, *words)).config.lora
    assert lora.target_modules == ["v_proj", "vision_tower:fc1", "vision_tower:fc2"]


def test_a_pattern_of_another_tower_says_which_and_how_to_ask_for_it(loaded, family_name):
    it, layer = loaded(family_name), VISION_LAYER[family_name]
    with pytest.raises(
        UserError,
        match=f"'{layer}' matches no linear layer of language_model, but 3 of vision_tower; "
        f"to adapt these too.* lora.towers=language_model,vision_tower",
    ):
        target_modules(it.model, it.family, Lora(target_modules=["q_proj", layer]))


def test_the_modules_of_a_tower_hold_it_and_nothing_else(loaded, family_name):
    it = loaded(family_name)
    assert modules_of(it.model, it.family, "multi_modal_projector") == PROJECTOR[family_name]
    for tower in ("vision_tower", "multi_modal_projector", "language_model"):
        inside = [
            p for name in modules_of(it.model, it.family, tower) for p in it.model.get_submodule(name).parameters()
        ]
        assert sum(p.numel() for p in inside) == parameters_per_tower(it.model, it.family)[tower]["all"]


@pytest.mark.parametrize("tower", ["multi_modal_projector", "vision_tower"])
def test_a_tower_in_full_beside_the_adapter(loaded, family_name, tower):
    it = adapted(loaded(family_name), in_full=[tower])
    counts, before = (
        parameters_per_tower(it.model, it.family),
        parameters_per_tower(loaded(family_name).model, it.family),
    )
    assert counts[tower] == {"all": before[tower]["all"], "trainable": before[tower]["all"]}
    assert {name for name, of in counts.items() if of["trainable"]} == {"language_model", tower}
    assert f"{tower} {before[tower]['all']:,} of {before[tower]['all']:,}" in tower_line(counts)


@pytest.mark.slow_for_qwen2_vl
def test_switching_the_adapter_off_brings_back_the_base_to_the_bit(loaded, family_name):
    """Also where a projector was trained in full: peft keeps the original."""
    base = probe(loaded(family_name))
    for lora in ({}, {"use_rslora": True}, {"use_dora": True}, {"in_full": ["multi_modal_projector"]}):
        it = adapted(loaded(family_name), **lora)
        assert (probe(it) - base).abs().max() > 1e-2
        with it.model.disable_adapter():
            assert torch.equal(probe(it), base)


def test_a_projector_alone_is_trained_on_images(loaded, family_name):
    """The text prompt's logits tell whether anything but the projector moved."""
    base, it = probe(loaded(family_name)), adapted(loaded(family_name), in_full=["multi_modal_projector"])
    with torch.no_grad():
        for name, parameter in it.model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    changed = (probe(it) - base).abs().amax(1) > 1e-3
    assert not changed[0]  # the text prompt comes first
    assert changed[-1]


@pytest.mark.parametrize(("lora", "scale"), [({"r": 4}, 8.0), ({"r": 4, "use_rslora": True}, 16.0)])
def test_rslora_divides_by_the_root_of_the_rank(loaded, lora, scale):
    it = adapted(loaded("llava"), lora_alpha=32, **lora)
    layer = it.model.get_submodule("base_model.model.model.language_model.layers.0.self_attn.q_proj")
    assert layer.scaling["default"] == scale


@pytest.mark.slow_for_qwen2_vl
@pytest.mark.parametrize("lora", [{"use_rslora": True}, {"use_dora": True}, {"in_full": ["multi_modal_projector"]}])
def test_what_was_trained_is_what_is_reloaded(loaded, family_name, tmp_path, lora):
    it = adapted(loaded(family_name), **lora)
    again = load_checkpoint(str(saved(it, tmp_path)))
    assert torch.equal(probe(again), probe(it))


@pytest.mark.parametrize(
    ("towers", "expected"),
    [
        ([], {"language_model", "multi_modal_projector", "output_head"}),
        (["multi_modal_projector"], {"multi_modal_projector"}),
        (["vision_tower"], {"vision_tower"}),
        (["language_model"], {"language_model", "output_head"}),
    ],
)
def test_full_fine_tuning_trains_what_is_named_and_not_the_vision_tower_unasked(loaded, family_name, towers, expected):
    it = loaded(family_name)
    assert choose_trainable(it.model, it.family, RunConfig(lora=None, trainable=towers)) is None
    counts = parameters_per_tower(it.model, it.family)
    assert {tower for tower, of in counts.items() if of["trainable"]} == expected
    assert all(of["trainable"] in (0, of["all"]) for of in counts.values())


@pytest.mark.slow_for_qwen2_vl
def test_full_fine_tuning_leaves_the_vision_tower_as_it_was(tiny, loaded, family_name, tmp_path, capsys):
    run = train(compose_run(arguments(tiny(family_name), tmp_path / "run", "lora=null", "train.max_steps=2")))
    family = loaded(family_name).family
    before, after = loaded(family_name).model.state_dict(), load_checkpoint(str(run.weights)).model.state_dict()
    changed = {family.tower_of(name) or "output_head" for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"language_model", "multi_modal_projector", "output_head"}
    shown = capsys.readouterr().out
    assert "Parameters (trainable of all): " in shown
    assert "vision_tower 0 of " in shown
    assert "peak memory" in shown


@pytest.mark.slow_for_qwen2_vl
def test_full_fine_tuning_on_text_leaves_the_projector_as_it_was_and_says_so(
    tiny, loaded, family_name, tmp_path, capsys
):
    more = ["lora=null", "train.max_steps=2", "view=text", "allow_label_conflict=true"]
    run = train(compose_run(arguments(tiny(family_name), tmp_path / "run", *more)))
    assert "None of the training rows has an image: multi_modal_projector would get no gradient" in (
        capsys.readouterr().out
    )
    trained = {tower for tower, of in run.manifest()["parameters"].items() if of["trainable"]}
    family = loaded(family_name).family
    before, after = loaded(family_name).model.state_dict(), load_checkpoint(str(run.weights)).model.state_dict()
    changed = {family.tower_of(name) or "output_head" for name in before if not torch.equal(before[name], after[name])}
    assert changed == trained == {"language_model", "output_head"}


@pytest.mark.slow
def test_an_adapter_with_a_projector_is_continued_on_text(tiny, loaded, tmp_path, capsys):
    adapter = saved(adapted(loaded("llava"), in_full=["multi_modal_projector"]), tmp_path / "adapter")
    more = [f"model.adapter={adapter}", "train.max_steps=2", "view=text", "allow_label_conflict=true"]
    run = train(compose_run(arguments(tiny("llava"), tmp_path / "run", *more)))
    assert "multi_modal_projector would get no gradient, so it is frozen" in capsys.readouterr().out
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, run.weights))
    assert before.keys() == after.keys()
    changed = {loaded("llava").family.tower_of(name) for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"language_model"} == {t for t, of in run.manifest()["parameters"].items() if of["trainable"]}


def test_a_run_trains_the_projector_beside_the_adapter(tiny, loaded, family_name, tmp_path):
    more = ["trainable=multi_modal_projector", "train.max_steps=2"]
    run = train(compose_run(arguments(tiny(family_name), tmp_path / "run", *more)))
    towers = run.manifest()["parameters"]
    assert towers["multi_modal_projector"]["trainable"] == towers["multi_modal_projector"]["all"]
    assert towers["vision_tower"]["trainable"] == towers["output_head"]["trainable"] == 0
    assert json.loads((run.weights / "adapter_config.json").read_text())["modules_to_save"] == PROJECTOR[family_name]
    weights = load_file(run.weights / "adapter_model.safetensors")
    stored = {name: value for name, value in weights.items() if "lora_" not in name}
    before = {f"base_model.model.{name}": value for name, value in loaded(family_name).model.state_dict().items()}
    assert stored
    assert all(loaded(family_name).family.tower_of(name) == "multi_modal_projector" for name in stored)
    assert all(not torch.equal(value, before[name]) for name, value in stored.items() if name.endswith(".weight"))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["trainable=eyes"], "trainable: .*'eyes'.* one of vision_tower"),
        (["trainable=language_model"], "trainable and lora.towers both name language_model"),
        (
            ["trainable=language_model", "lora.towers=multi_modal_projector", "lora.target_modules=all-linear"],
            "trainable=language_model with an adapter .* lora=null",
        ),
        (["lora=null", "model.quantization=nf4"], "model.quantization=nf4 with lora=null: .*weights cannot be trained"),
        (
            ["lora=null", "model.adapter=somewhere"],
            "model.adapter=.*somewhere with lora=null: .* align merge checkpoint=",
        ),
        (["model.adapter=.*a", "lora.r=4"], "argument 'lora.r=4': lora.r .*no effect.* model.adapter=.*a"),
        (["model.adapter=.*a", "trainable=vision_tower"], "trainable .*no effect.* model.adapter="),
        (["model.adapter=nowhere"], "adapter nowhere: adapter_model.safetensors "),
        (["lora=null", "trainable=vision_tower"], "24 training rows have no image .*language model"),
        (
            ["view=text", "trainable=multi_modal_projector", "allow_label_conflict=true"],
            r"trainable names multi_modal_projector, .*none of the training rows has an image \(view=text\).* remove "
            r"it from "
            "trainable, or train on images",
        ),
        (
            [
                "view=text",
                "lora.towers=language_model,vision_tower",
                "lora.target_modules=all-linear",
                "data.harmful=null",
            ],
            "lora.towers names vision_tower, .*none of the training rows has an image",
        ),
        (["model.quantization=int4"], "model.quantization=int4: expected one of nf4, int8, or null"),
    ],
)
def test_what_cannot_be_trained_says_why(tiny, tmp_path, monkeypatch, more, expected):
    monkeypatch.chdir(tmp_path)
    for adapter in ("a", "somewhere"):  # what is not there at all is said first
        (tmp_path / adapter).mkdir()
        (tmp_path / adapter / "adapter_model.safetensors").touch()
    with pytest.raises(UserError, match=expected):
        train(compose_run(arguments(tiny("llava"), tmp_path / "run", *more)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_short_weights_are_not_trained_in_full_without_a_float32_copy(tiny, tmp_path, dtype):
    command = arguments(tiny("llava"), tmp_path / "run", "lora=null", f"model.dtype={dtype}")
    with pytest.raises(
        UserError, match=f"lora=null with model.dtype={dtype}: .*updates would round .*zero2.yaml .*model.dtype=float32"
    ):
        train(compose_run(command))


@pytest.mark.slow_for_qwen2_vl
def test_a_tower_beside_an_adapter_is_held_in_float32(tiny, family_name, tmp_path):
    more = ["trainable=multi_modal_projector", "model.dtype=bfloat16", "train.bf16=true", "train.learning_rate=1e-5"]
    composed = compose_run(arguments(tiny(family_name), tmp_path / "run", *more))
    trainer = build_run(composed, training_data(composed.config), RunFolder(tmp_path / "run")).trainer
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
    tower = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if ".modules_to_save.default." in n}
    trainer.train()
    moved = [(trainer.model.get_parameter(n) != before).float().mean().item() for n, before in tower.items()]
    assert min(moved) > 0.9  # in bfloat16 most of them would stay where they were


@pytest.mark.parametrize("name", ["argument_one", "other_one"])
def test_a_recipe_of_ones_own_may_not_say_what_a_continued_adapter_decides_whatever_its_name(tmp_path, name):
    file = tmp_path / f"{name}.yaml"
    file.write_text("method: sft\nlora: {lora_dropout: 0.1}\n")
    with pytest.raises(UserError, match=f"{name}.yaml: lora.lora_dropout .*no effect"):
        check_trainable(compose_run([f"recipe={file}", "model=owner/name", "model.adapter=a"]))
    check_trainable(compose_run(["recipe=mm_sft", "model=llava_7b", "model.adapter=a"]))  # what is usual for the model
