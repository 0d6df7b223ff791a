"""Merging: the merged model answers as model and adapter do, loads anywhere, and is not written where it does not."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from align.batches.padding import pad
from align.batches.rendering import Renderer
from align.cli import main
from align.config.compose import compose_run
from align.data.images import encode_png
from align.errors import UserError
from align.models.loading import Loaded, load_checkpoint
from align.models.merging import merge, probe, rounding
from align.rows import Row
from align.settings import ModelSettings
from align.training.run import train
from tests.support.adapters import adapted, saved
from tests.support.launch import ROOT, call
from tests.support.small_run import arguments

EVALUATION = ["benchmark=mini_vsil", "limit=3", "generation.max_new_tokens=4"]


@pytest.mark.parametrize(
    "lora",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"in_full": ["multi_modal_projector"]}],
    ids=["lora", "rslora", "dora", "projector"],
)
def test_merged_equals_unmerged(loaded, family_name, tmp_path, lora):
    it = adapted(loaded(family_name), **lora)
    merged = merge(saved(it, tmp_path / "adapter"), tmp_path / "merged", ModelSettings())
    assert merged.effect > 1e-2
    assert merged.difference <= merged.bound == 1e-4
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    logits = probe(Loaded(plain, it.processor, it.family, "", "", ModelSettings()))
    assert (logits - probe(it)).abs().max() < 1e-4
    assert (logits - probe(loaded(family_name))).abs().max().item() == pytest.approx(merged.effect, rel=1e-2)
    assert {p.name for p in (tmp_path / "merged").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "processor_config.json",
    }
    assert not list(tmp_path.glob("merged/adapter*"))


@pytest.mark.slow
def test_run_adapter_and_merged_model_are_all_evaluated(tiny, family_name, tmp_path, capsys):
    run = train(compose_run(arguments(tiny(family_name), tmp_path / "run", "train.max_steps=3")))
    merged = tmp_path / "merged"
    assert main(["merge", f"run={run.path}", f"output_dir={merged}"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"The adapter changes the logits of a text and an image prompt by up to \d", shown)
    assert re.search(r"Merged and unmerged logits differ by at most \S+ \(bound 1.0e-04\)", shown)
    targets = [f"run={run.path}", f"checkpoint={run.weights}", f"checkpoint={merged}", f"model={merged}"]
    answers = []
    for i, target in enumerate(targets):
        out = [] if target.startswith("run=") else [f"output_dir={tmp_path / str(i)}"]
        assert main(["eval", target, *out, *EVALUATION]) == 0
        folder = run.path if target.startswith("run=") else tmp_path / str(i)
        lines = (folder / "evaluation" / "mini_vsil" / "responses.jsonl").open()
        answers.append([json.loads(line)["response"] for line in lines])
    assert answers[0] == answers[1] == answers[2] == answers[3]


@pytest.mark.slow
@pytest.mark.long
def test_a_merged_model_is_read_by_plain_transformers(loaded, family_name, tmp_path):
    """In a process that has nothing of ours: the same logits, pixels and prompt as model and adapter have here."""
    it = adapted(loaded(family_name))
    merge(saved(it, tmp_path / "adapter"), tmp_path / "merged", ModelSettings())
    renderer = Renderer(it.processor, it.family)
    image = np.asarray(Image.radial_gradient("L").resize((40, 32)).convert("RGB"))
    rows = {
        "text": Row("text", "What is this?"),
        "image": Row("image", "What is this?", images=(encode_png(Image.fromarray(image)),)),
    }
    batches = {name: pad([renderer.render(row)], renderer.pad_token_id) for name, row in rows.items()}
    given = {
        f"{name}/{key}": value for name, batch in batches.items() for key, value in batch.items() if key != "labels"
    }
    save_file(given | {"image": torch.tensor(image)}, tmp_path / "in.safetensors")
    script = str(ROOT / "tests" / "support" / "plain_transformers.py")
    files = [str(tmp_path / name) for name in ("merged", "in.safetensors", "out.safetensors")]
    done = call([sys.executable, "-I", script, *files], tmp_path)
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "out.safetensors")
    for name, batch in batches.items():
        with torch.no_grad():
            wanted = it.model.eval()(**{key: value for key, value in batch.items() if key != "labels"}).logits
        assert (found[name] - wanted).abs().max() < 1e-4
    assert torch.equal(found["pixel_values"], batches["image"]["pixel_values"])
    assert torch.equal(found["ids"], batches["text"]["input_ids"])


@pytest.mark.slow_for_qwen2_vl
def test_a_merged_model_is_trained_further(tiny, loaded, family_name, tmp_path):
    merge(saved(adapted(loaded(family_name)), tmp_path / "adapter"), tmp_path / "merged", ModelSettings())
    run = train(compose_run(arguments(tmp_path / "merged", tmp_path / "run", "train.max_steps=1")))
    with (again := load_checkpoint(str(run.weights))).model.disable_adapter():
        assert torch.equal(probe(again), probe(load_checkpoint(str(tmp_path / "merged"))))


def test_a_quantised_runs_adapter_is_merged_into_the_full_precision_base(tiny, tmp_path, capsys):
    more = ["model.quantization=nf4", "train.max_steps=2"]
    run = train(compose_run(arguments(tiny("llava"), tmp_path / "run", *more)))
    assert main(["merge", f"run={run.path}", f"output_dir={tmp_path / 'merged'}"]) == 0
    assert "trained on a base in nf4, but it is merged into the base in full precision" in capsys.readouterr().out
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    assert load_checkpoint(str(tmp_path / "merged")).model.dtype == torch.float32


def test_shorter_types_have_a_bound_of_their_own(loaded, family_name, tmp_path):
    adapter = saved(adapted(loaded(family_name)), tmp_path / "adapter")
    merged = merge(adapter, tmp_path / "merged", ModelSettings(dtype="bfloat16"))
    assert 1e-4 < merged.difference <= merged.bound < 1
    assert load_checkpoint(str(tmp_path / "merged")).model.dtype == torch.bfloat16


def test_an_adapter_that_rounding_would_swallow_is_not_written(loaded, family_name, tmp_path):
    """The difference is well within bfloat16's rounding, and all that the adapter does is lost in it."""
    adapter = saved(weak(loaded(family_name), 2e-3), tmp_path / "adapter")
    with pytest.raises(UserError, match=r"a tenth of .*adapter.*\(.*nothing is written; .*dtype=float32"):
        merge(adapter, tmp_path / "merged", ModelSettings(dtype="bfloat16"))
    assert not (tmp_path / "merged").exists()
    merged = merge(adapter, tmp_path / "merged", ModelSettings(dtype="float32"))
    assert merged.difference <= merged.bound <= 0.1 * merged.effect


def test_an_adapter_that_was_not_trained_is_merged_and_said_to_change_nothing(loaded, family_name, tmp_path, capsys):
    it = weak(loaded(family_name), 0.0)
    adapter, output = saved(it, tmp_path / "adapter"), tmp_path / "merged"
    assert main(["merge", f"checkpoint={adapter}", f"output_dir={output}"]) == 0
    assert "The adapter changes no logit of a text and an image prompt" in capsys.readouterr().out
    assert torch.equal(probe(load_checkpoint(str(output))), probe(loaded(family_name)))


def weak(it, factor):
    """An adapter on a loaded model whose update is that part of a trained one's."""
    adapted(it)
    with torch.no_grad():
        for name, parameter in it.model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(factor)
    return it


def test_larger_logits_may_differ_by_more():
    """A sum is rounded by a share of what is summed: a model with logits of 40 is not merged worse
    than one with logits of 4.
    """
    small, large = torch.tensor([4.0, -2.0]), torch.tensor([4.0, -40.0])
    assert rounding(torch.float32, small) == 1e-4
    assert rounding(torch.float32, large) == pytest.approx(4e-4)
    assert rounding(torch.bfloat16, large) == 8 * 2**-7 * 40


@pytest.mark.parametrize(("factor", "tolerance"), [(1.0, 1e-9), (float("nan"), 1e-4)])
def test_a_merge_that_changes_the_answers_is_not_written(loaded, tmp_path, monkeypatch, factor, tolerance):
    monkeypatch.setattr("align.models.merging.TOLERANCE", tolerance)
    monkeypatch.setattr("align.models.merging.OF_THE_LARGEST", 0.0)
    it = adapted(loaded("llava"))
    with torch.no_grad():
        for name, parameter in it.model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(factor)
    adapter = saved(it, tmp_path / "adapter")
    with pytest.raises(UserError, match="the logits of the merged model differ by .* nothing is written"):
        merge(adapter, tmp_path / "merged", ModelSettings())
    assert not (tmp_path / "merged").exists()


def test_what_cannot_be_merged_says_why(tiny, loaded, tmp_path, capsys):
    full = train(compose_run(arguments(tiny("llava"), tmp_path / "full", "lora=null", "train.max_steps=1")))
    adapter = saved(adapted(loaded("llava")), tmp_path / "adapter")
    (tmp_path / "there").mkdir()
    new = f"output_dir={tmp_path / 'new'}"
    for words, expected in [
        ([f"run={full.path}", new], "trained in full, without an adapter, so there is nothing to merge"),
        ([f"checkpoint={tiny('llava')}", new], "found no adapter_config.json"),
        ([f"checkpoint={adapter}", f"output_dir={tmp_path / 'there'}"], "exists already; give another .*remove it"),
        ([f"checkpoint={adapter}"], "output_dir= is missing"),
        ([new], "run=.* or checkpoint="),
        ([f"run={tmp_path}", new], "not a run folder"),
    ]:
        assert main(["merge", *words]) == 2
        assert re.search(expected, capsys.readouterr().err), expected
    assert not (tmp_path / "new").exists()
