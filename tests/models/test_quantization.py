"""Quantised bases: what is quantised, and runs that train, save, reload and evaluate on them."""

import json
import shutil
import sys

import pytest
import torch

from align.cli import main
from align.config.compose import compose_run
from align.errors import UserError
from align.models.loading import load, parameters_per_tower
from align.models.merging import probe
from align.models.quantization import quantization_config
from align.settings import ModelSettings
from align.training.run import train
from tests.support.adapters import adapted, saved
from tests.support.small_run import arguments

KINDS = ["nf4", "int8"]
LAYER = {"nf4": "Linear4bit", "int8": "Linear8bitLt"}
EVALUATION = ["benchmark=mini_vsil", "limit=3", "generation.max_new_tokens=4"]


def answers(folder):
    return [json.loads(line)["response"] for line in (folder / "evaluation" / "mini_vsil" / "responses.jsonl").open()]


def quantised(folder, kind, dtype="float32", **more):
    return load(ModelSettings(name="tiny", path=str(folder), dtype=dtype, quantization=kind, **more))


@pytest.mark.parametrize("kind", KINDS)
def test_the_language_models_linear_layers_are_quantised_and_nothing_else(tiny, family_name, loaded, kind):
    it = quantised(tiny(family_name), kind)
    layers = [name for name, module in it.model.named_modules() if type(module).__name__ == LAYER[kind]]
    assert len(layers) == 3 * 7
    assert {it.family.tower_of(name) for name in layers} == {"language_model"}
    plain = loaded(family_name)
    counts, expected = (parameters_per_tower(of.model, of.family) for of in (it, plain))
    assert {tower: of["all"] for tower, of in counts.items()} == {tower: of["all"] for tower, of in expected.items()}
    difference = (probe(it) - probe(plain)).abs().max()
    assert 1e-4 < difference < 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_four_bits_are_computed_in_the_models_own_type(tiny, loaded, dtype):
    it = quantised(tiny("llava"), "nf4", dtype)
    layer = it.model.model.language_model.layers[0].mlp.up_proj
    assert layer.compute_dtype == getattr(torch, dtype) == it.model.dtype
    assert layer.weight.quant_state.nested  # double quantisation


def test_quantisation_is_part_of_what_identifies_weights(tiny):
    assert len({quantised(tiny("llava"), kind).weights for kind in (None, *KINDS)}) == 3


@pytest.mark.slow_for_qwen2_vl
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("nf4", ["trainable=multi_modal_projector"]),
        pytest.param("nf4", ["lora.use_dora=true"], marks=pytest.mark.slow),
        pytest.param("int8", ["lora.use_rslora=true"], marks=pytest.mark.slow),
    ],
)
def test_a_run_on_a_quantised_base_trains_and_evaluates(tiny, family_name, tmp_path, kind, more):
    command = arguments(tiny(family_name), tmp_path / "run", f"model.quantization={kind}", "train.max_steps=3", *more)
    run = train(compose_run(command))
    assert run.manifest()["versions"]["bitsandbytes"] != "absent"
    assert main(["eval", f"run={run.path}", *EVALUATION]) == 0
    checkpoint = [f"checkpoint={run.weights}", f"model.quantization={kind}", "model.name=x", "model.dtype=float32"]
    assert main(["eval", *checkpoint, f"output_dir={tmp_path / 'checkpoint'}", *EVALUATION]) == 0
    assert answers(run.path) == answers(tmp_path / "checkpoint")
    on_base = load(run.config().model, str(run.weights))
    assert {type(m).__name__ for m in on_base.model.modules()} >= {LAYER[kind]}
    assert (probe(on_base) - probe(quantised(tiny(family_name), kind))).abs().max() > 1e-2
    with on_base.model.disable_adapter():
        assert torch.equal(probe(on_base), probe(quantised(tiny(family_name), kind)))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_an_adapter_goes_on_on_a_quantised_base(tiny, loaded, kind, tmp_path):
    folder = saved(adapted(quantised(tiny("llava"), kind), in_full=["multi_modal_projector"]), tmp_path / "adapter")
    command = arguments(tiny("llava"), tmp_path / "run", f"model.quantization={kind}", f"model.adapter={folder}")
    run = train(compose_run([*command, "train.max_steps=1", "train.learning_rate=1e-9"]))
    start = probe(quantised(tiny("llava"), kind, adapter=str(folder)))
    after = probe(load(run.config().model, str(run.weights)))
    assert (after - start).abs().max() < 2e-2  # trl rounds the adapter to bfloat16
    assert (after - probe(quantised(tiny("llava"), kind))).abs().max() > 5e-2


def test_what_dtype_is_trained(tiny, tmp_path):
    """trl trains the adapter of a quantised model in bfloat16; a tower in full keeps the type that the base has."""
    from align.data.assembly import training_data
    from align.run_folder import RunFolder
    from align.training.build import build_run

    command = arguments(tiny("llava"), tmp_path, "model.quantization=nf4", "trainable=multi_modal_projector")
    composed = compose_run([*command, "lora.use_dora=true"])
    model = build_run(composed, training_data(composed.config), RunFolder(tmp_path)).trainer.model
    dtypes = {n: p.dtype for n, p in model.named_parameters() if p.requires_grad}
    assert {d for n, d in dtypes.items() if "lora_A" in n or "lora_B" in n} == {torch.bfloat16}
    assert {d for n, d in dtypes.items() if "magnitude" in n or "modules_to_save" in n} == {torch.float32}


def test_dora_on_eight_bits_is_refused_without_a_gpu(tiny, loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    more = ["model.quantization=int8", "lora.use_dora=true"]
    with pytest.raises(UserError, match="int8 with DoRA .* needs a GPU.* nf4 works on both"):
        train(compose_run(arguments(tiny("llava"), tmp_path / "run", *more)))
    folder = saved(adapted(loaded("llava"), use_dora=True), tmp_path / "adapter")
    with pytest.raises(UserError, match="int8 with DoRA"):
        quantised(tiny("llava"), "int8", adapter=str(folder))


def test_without_bitsandbytes_the_remedy_is_named(loaded, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"model.quantization=nf4 needs bitsandbytes.* pip install vsil-align\[quant\]"):
        quantization_config("nf4", loaded("llava").family, torch.float32)


def test_nf4_of_a_width_that_it_cannot_compute_is_refused_before_anything_is_loaded(tiny, tmp_path):
    folder = shutil.copytree(tiny("llava"), tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 100
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")  # not opened
    with pytest.raises(UserError, match="intermediate_size is 100, .*64.*int8"):
        load(ModelSettings(name="odd", path=str(folder), quantization="nf4"))
