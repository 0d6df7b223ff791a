"""The comparison: every arm trained and evaluated once, reused, and set against the others on the same items."""

import json
import multiprocessing
import random
import re
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from align.cli import main
from align.commands.arms import plan
from align.commands.at_once import rows_at_once, run_rows
from align.commands.board import board
from align.config.compose import compose, compose_run
from align.errors import UserError
from align.miniature.rows import draw_twin
from align.run_folder import RunFolder
from align.settings import CompareConfig
from tests.support.launch import align, call
from tests.support.small_run import one_long_row
from tests.support.unanswered import stored


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Rows run here, one after another: no process is started for them that imports torch and is not used."""
    monkeypatch.setattr("align.commands.compare.warm_up", lambda: None)


@pytest.fixture
def model_file(tiny, tmp_path):
    """A model file over the untrained tiny model, small enough for the machinery."""
    few = {"data": {"harmful": {"rows": 24}, "benign": {"rows": 24}}}
    twins = {"data": few["data"] | {"general": None}}
    settings = {
        "suite": "miniature",
        "model": {"path": str(tiny("llava")), "dtype": "float32"},
        "global_batch_size": 4,
        "train": {"max_steps": 2, "bf16": False, "gradient_checkpointing": False, "learning_rate": 0.01},
        "evaluate": {
            "benchmark": ["mini_vsil", "mini_vsil_free", "mini_twin", "mini_twin.blank"],
            "generation": {"max_new_tokens": 4},
            "settings": {name: {"limit": 6} for name in ("mini_vsil", "mini_vsil_free", "mini_twin")},
        },
        "recipes": dict.fromkeys(("t_sft", "mm_sft"), few)
        | {f"controlled/{arm}": twins for arm in ("text_leak", "image_leak", "image_free")},
    }
    file = tmp_path / "small.yaml"
    file.write_text(OmegaConf.to_yaml(settings))
    return file


def test_compare_writes_its_files_and_reuses_finished_runs(model_file, tmp_path, capsys):
    recipes = "recipe=t_sft,mm_sft"
    command = ["compare", "track=paper", recipes, f"model={model_file}", f"output_dir={tmp_path / 'out'}", "seed=0,1"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "T-SFT" in shown
    assert "safety prompt" in shown
    assert "Not shown. On mini_vsil_free" in shown  # two steps teach nothing
    assert "2 seeds" in " ".join(shown.split())
    assert [line for line in shown.splitlines() if len(line) > 80 and str(tmp_path) not in line] == []
    assert [line.split()[0] for line in shown.splitlines() if " of 6  " in line] == ["1", "2", "3", "4", "5", "6"]
    assert str(tmp_path / "out" / "report.html") in shown
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (result["schema"], len(result["rows"])) == (1, 6)
    assert [(row["name"], row["seed"], row["steps"]) for row in result["rows"]] == [
        ("vanilla", 0, 0),
        ("safety_prompt", 0, 0),
        ("t_sft", 0, 2),
        ("t_sft", 1, 2),
        ("mm_sft", 0, 2),
        ("mm_sft", 1, 2),
    ]
    assert set(result["rows"][0]["results"]) == {"mini_vsil", "mini_vsil_free", "mini_twin", "mini_twin.blank"}
    assert [(arm["name"], arm["seed"]) for arm in result["arms"]] == [
        ("vanilla", "0"),
        ("safety_prompt", "0"),
        ("t_sft", "0,1"),
        ("mm_sft", "0,1"),
    ]
    assert {(c["kind"], *c["sets"], c["n"], *c["seeds"]) for c in result["comparisons"]} == {
        ("difference", "mini_vsil", 12, 0, 1),
        ("difference", "mini_vsil_free", 12, 0, 1),
        ("difference", "mini_twin", 12, 0, 1),
        ("difference", "mini_twin.blank", 12, 0, 1),
        ("interaction", "mini_vsil_free", "mini_vsil", 24, 0, 1),
    }
    assert (tmp_path / "out" / "paper.png").is_file()
    text = (tmp_path / "out" / "paper.md").read_text()
    assert "| paper | small | MM-SFT | SFT | 0,1 |" in text
    assert "MM-SFT minus T-SFT" in text
    assert list((tmp_path / "out").rglob("checkpoint-*")) == []  # a run of seconds has none
    weights = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("adapter_model.safetensors")}
    assert main(command) == 0
    again = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert again["rows"] == result["rows"]
    assert weights == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("adapter_model.safetensors")}


ARMS = "recipe=controlled/text_leak,controlled/image_leak,controlled/image_free"


@pytest.mark.slow
def test_the_controlled_track_has_its_own_table_figure_and_conclusion(model_file, tmp_path, capsys):
    command = ["compare", f"model={model_file}", f"output_dir={tmp_path / 'out'}", ARMS]
    assert main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "image_free gives 0.0 points more safe responses than image_leak" in shown
    assert "Not shown." not in shown  # which answers the question about text-only alignment, and no arm here is that
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {row["track"] for row in result["rows"]} == {"controlled"}
    assert [row["name"] for row in result["rows"]] == ["vanilla", "text_leak", "image_leak", "image_free"]
    assert {(c["a"], c["b"]) for c in result["comparisons"]} == {
        ("image_leak", "text_leak"),
        ("image_free", "image_leak"),
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "comparison.json",
        "controlled.md",
        "controlled.png",
    }
    assert not (tmp_path / "out" / "paper.md").exists()
    stop_at_the_first_step(next((tmp_path / "out").rglob("controlled-text_leak-*/manifest.json")).parent)
    assert main(command) == 0
    note = "small, controlled track, SFT: text_leak seed 0 stopped at step 1 (too far); it took fewer steps"
    assert " ".join(capsys.readouterr().out.split()).count(note) == 1
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {(c["a"], c["b"]) for c in result["comparisons"]} == {("image_free", "image_leak")}
    assert [(arm["name"], arm["steps"], arm["stopped"]) for arm in result["arms"]][1:3] == [
        ("text_leak", 1, "seed 0 stopped at step 1: too far"),
        ("image_leak", 2, None),
    ]
    assert any(line.startswith(note) for line in result["notes"])
    text = (tmp_path / "out" / "controlled.md").read_text()
    assert "| controlled | small | text_leak | SFT | 0 | 1 (stopped) |" in text
    assert note in text


def stop_at_the_first_step(folder):
    """A finished run's files as if it had passed its method's bound there."""
    run = RunFolder(folder)
    run.record(steps=1, stopped="stopped at step 1: too far")
    run.steps_file.write_text(run.steps_file.read_text().splitlines()[0] + "\n")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"data": {"harmful": {"rows": 25}}},
            "training row 25 is 'benign/twin-train-0' in .* and 'harmful/twin-train-24' in",
        ),
        ({"data": {"benign": {"seed": 1}}}, r"training row 25 \(benign/twin-train-0\): item is '\w+' in"),
        ({"data": {"harmful": {"seed": 1}}}, r"training row 1 \(harmful/twin-train-0\): item is '\w+' in"),
        ({"evaluate": {"generation": {"max_new_tokens": 8}}}, "evaluate.generation.max_new_tokens is 4 in .* and 8 in"),
        ({"lora": {"target_modules": ["q_proj"]}}, r"lora.target_modules is .*'v_proj'.* in .* and \['q_proj'\] in"),
        ({"train": {"learning_rate": 0.02}}, "train.learning_rate is 0.01 in .* and 0.02 in"),
        (
            {"data": {"benign": {"caption_share": 0.5}}},
            "benign row shown as a caption .* is None in .* and 'benign/twin-train-",
        ),
    ],
)
def test_arms_that_are_not_comparable_are_refused_before_anything_is_trained(
    model_file, tmp_path, capsys, change, expected
):
    settings = OmegaConf.load(model_file)
    settings.recipes["controlled/image_leak"] = OmegaConf.merge(settings.recipes["controlled/image_leak"], change)
    model_file.write_text(OmegaConf.to_yaml(settings))
    arms = "recipe=controlled/text_leak,controlled/image_leak"
    assert main(["compare", f"model={model_file}", f"output_dir={tmp_path / 'out'}", arms]) == 2
    message = capsys.readouterr().err
    assert "controlled/text_leak and controlled/image_leak are not a controlled comparison: " in message
    assert re.search(expected, message)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.slow
def test_the_controlled_track_with_several_methods_compares_arms_within_each(model_file, tmp_path, capsys):
    arms = "recipe=controlled/text_leak,controlled/image_leak"
    command = ["compare", f"model={model_file}", f"output_dir={tmp_path / 'out'}", arms]
    assert main([*command, "method=dpo,safe_unlearning", "override.evaluate.benchmark=mini_vsil,mini_vsil_free"]) == 0
    assert "text_leak SafeUnlearning" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [(row["name"], row["method"]) for row in result["rows"]] == [
        ("vanilla", None),
        ("text_leak", "dpo"),
        ("text_leak", "safe_unlearning"),
        ("image_leak", "dpo"),
        ("image_leak", "safe_unlearning"),
    ]
    assert {(c["method"], c["a"], c["b"]) for c in result["comparisons"]} == {
        ("dpo", "image_leak", "text_leak"),
        ("safe_unlearning", "image_leak", "text_leak"),
    }


@pytest.mark.slow
def test_a_checkpoint_trained_elsewhere_is_a_row(model_file, tiny, tmp_path):
    elsewhere = f"checkpoint.theirs={tiny('llava')}"
    few = ["recipe=t_sft", "defence=[]", "override.evaluate.benchmark=mini_vsil"]
    command = ["compare", f"model={model_file}", f"output_dir={tmp_path / 'out'}", elsewhere, *few]
    assert main(command) == 0
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [(row["name"], row["method"], row["steps"]) for row in result["rows"]] == [
        ("vanilla", None, 0),
        ("theirs", None, 0),
        ("t_sft", "sft", 2),
    ]
    assert result["rows"][1]["results"]["mini_vsil"]["counts"] == result["rows"][0]["results"]["mini_vsil"]["counts"]
    assert main([*command, "model=mini_llava,mini_qwen2_vl"]) == 2


PAPER = ["recipe=t_sft,mm_sft"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            [*PAPER, "checkpoint.vanilla=x"],
            "checkpoint.vanilla=: .* 'vanilla' .the base model.*checkpoint.<name>=",
        ),
        (
            [*PAPER, "checkpoint.safety_prompt=x"],
            "checkpoint.safety_prompt=: .* 'safety_prompt' .a defence",
        ),
        ([*PAPER, "defence=[]", "checkpoint.safety_prompt=x"], "'safety_prompt' .a defence"),
        ([*PAPER, "checkpoint.mm_dpo=x"], "'mm_dpo' .a recipe"),
        ([*PAPER, "defence=safty_prompt"], "defence=safty_prompt: unknown .did you mean 'safety_prompt'"),
        (
            [*PAPER, "defence=align.config.registry:DEFENCES,align.evaluation.answers:DEFENCES"],
            "defence=align.evaluation.answers:DEFENCES: .* 'DEFENCES' .the row of defence=align.config.registry:",
        ),
        (["track=controlled", "checkpoint.theirs=x"], "checkpoint.theirs=: .* of the paper track, .*track=paper"),
        ([ARMS, "checkpoint.theirs=x"], "checkpoint.theirs=: .* a recipe of the paper track to recipe="),
        (
            [*PAPER, "method=dpo"],
            "method=dpo: .* controlled track.* recipe=t_dpo,mm_dpo",
        ),
        ([ARMS, "override.method=dpo"], "override.method=: .* method= "),
        ([*PAPER, "override.seed=3"], "override.seed=: .* seed="),
        ([ARMS, "method=sft,dop"], "method=dop: unknown .did you mean 'dpo'"),
        (
            [*PAPER, "override.train.per_device_train_batch_size=3"],
            "train.per_device_train_batch_size=3 does not",
        ),
        ([ARMS, "method=sft,dpo", "override.train.beta=0.1"], "no setting train.beta"),
    ],
)
def test_what_cannot_be_trained_or_shown_is_refused_before_anything_is_loaded(
    model_file, tmp_path, capsys, monkeypatch, arguments, expected
):
    monkeypatch.setattr("align.commands.evaluate.run_evaluation", lambda *_: pytest.fail("something is evaluated"))
    assert main(["compare", f"model={model_file}", f"output_dir={tmp_path / 'out'}", *arguments]) == 2
    assert re.search(expected, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_recipe_is_not_called_as_a_row_without_training(model_file, tmp_path, capsys):
    recipe = tmp_path / "vanilla.yaml"
    recipe.write_text("method: sft\n")
    assert main(["compare", f"model={model_file}", f"output_dir={tmp_path / 'out'}", f"recipe={recipe}"]) == 2
    assert f"recipe={recipe}: 'vanilla' is reserved" in capsys.readouterr().err


def test_what_no_table_would_show_is_not_evaluated(model_file, tmp_path):
    arguments = [f"model={model_file}", f"output_dir={tmp_path}", ARMS, "defence=safety_prompt"]
    _, references = plan(compose(CompareConfig, arguments))
    assert [evaluation.name for evaluation in references[str(model_file)]] == ["vanilla"]


def twins_without_harmful_answers(folder, n=24):
    """A file of the miniature's twins as somebody's own, who has no harmful answers."""
    records = []
    for i in range(n):
        twin = draw_twin(f"own-{i}", "train", random.Random(i))
        for name in ("image", "benign_image"):
            (folder / f"{name}-{i}.png").write_bytes(getattr(twin, name).bytes)
        own = {"image": f"image-{i}.png", "benign_image": f"benign_image-{i}.png", "harmful_response": None}
        records.append(asdict(twin) | own)
    file = folder / "twins.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


@pytest.mark.long
@pytest.mark.slow
def test_answers_that_arms_lack_are_generated_once_for_all_of_them(model_file, tmp_path, monkeypatch):
    cache, file = tmp_path / "cache", twins_without_harmful_answers(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    settings = OmegaConf.load(model_file)
    for arm, subset in (("text_leak", "leak"), ("image_free", "free")):
        own = {"source": "twins", "path": str(file), "subset": subset, "harmful_response": "generate"}
        settings.recipes[f"controlled/{arm}"].data.harmful = own
        settings.recipes[f"controlled/{arm}"].data.benign = {"source": "twins", "path": str(file), "subset": "benign"}
        settings.recipes[f"controlled/{arm}"].data.benign.view = "image"
    model_file.write_text(OmegaConf.to_yaml(settings))
    arms = ["recipe=controlled/text_leak,controlled/image_free", "method=dpo", "override.generation.max_new_tokens=4"]
    assert main(["compare", f"model={model_file}", f"output_dir={tmp_path / 'out'}", *arms]) == 0
    manifests = [json.loads(file.read_text()) for file in (tmp_path / "out").glob("small/*/manifest.json")]
    facts = [fact for it in manifests for fact in it.get("data", {}).get("facts", ()) if "generated by" in fact]
    assert len(facts) == 2
    assert all("data.harmful: harmful_response of 24 rows generated by the base model small" in fact for fact in facts)
    assert len(stored(cache)) == len({line["key"] for line in stored(cache)}) == 24


@pytest.mark.parametrize(("words", "strategy"), [([], "no"), (["override.train.save_steps=1"], "steps")])
def test_only_who_asks_for_checkpoints_of_the_miniature_gets_them(words, strategy):
    cells, _ = plan(compose(CompareConfig, ["recipe=t_sft", *words]))
    assert cells["mini_llava"][0].config.train["save_strategy"] == strategy


def test_an_unknown_track_is_an_error(capsys):
    assert main(["compare", "track=papr"]) == 2
    assert "track=papr: expected paper or controlled" in capsys.readouterr().err


def test_a_row_that_cannot_be_used_stops_a_comparison_before_anything_is_trained(tiny, tmp_path, capsys):
    file = one_long_row(tmp_path)
    own = [f"override.data.own={{source: local, path: {file}, role: harmful}}", "override.view=text"]
    small = ["override.train.max_steps=1", "override.global_batch_size=2", "override.evaluate.benchmark=[mini_vsil]"]
    words = ["compare", "recipe=t_sft", f"model={tiny('llava')}", f"output_dir={tmp_path / 'out'}", *own, *small]
    assert main(words) == 2
    assert "t_sft on tiny-llava0" in (said := capsys.readouterr().err)
    assert "own/r7: 3" in said
    assert not (tmp_path / "out").exists()


def test_how_many_rows_run_at_the_same_time(monkeypatch):
    def of(words, *model):
        given = compose(CompareConfig, words).config
        return rows_at_once(given, [compose_run(["recipe=mm_sft", *model]).config])

    monkeypatch.setattr("align.commands.at_once.usable_processors", lambda: 4)
    assert of([]) == 4
    assert of(["at_once=3"], "model=llava_7b") == 3
    assert of([], "model=llava_7b") == 1
    assert of([], "generation={base_url: 'http://x/v1', model: m}") == 1  # its limit of calls is one for a command
    monkeypatch.setattr("align.commands.at_once.has_gpu", lambda: True)
    assert of([]) == 1
    with pytest.raises(UserError, match="at_once=0"):
        of(["at_once=0"])


@pytest.mark.long
@pytest.mark.slow
def test_rows_side_by_side_give_what_rows_one_after_the_other_give(model_file, tmp_path):
    found = []
    for at_once, processors in ((1, "0"), (2, "0,1")):
        out = tmp_path / str(at_once)
        words = ["recipe=t_sft,mm_sft", f"model={model_file}", f"at_once={at_once}", f"output_dir={out}"]
        done = call(["taskset", "-c", processors, *align("compare", *words)], tmp_path, 300)
        assert done.returncode == 0, done.stderr
        runs = [file.parents[1] for file in out.rglob("checkpoint/adapter_model.safetensors")]
        found.append({run.name: load_file(run / "checkpoint" / "adapter_model.safetensors") for run in runs})
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) == 2
    for name, weights in found[0].items():
        assert all(torch.equal(weights[key], found[1][name][key]) for key in weights)


@pytest.mark.long
@pytest.mark.slow
def test_the_first_row_that_fails_ends_the_others_and_its_error_is_raised():
    with pytest.raises(UserError, match="row 1"), board(["row 0", "row 1"], [1, 1]) as shown:
        run_rows({0: partial(failing, 0), 1: partial(failing, 1)}, 2, shown)
    assert [child for child in multiprocessing.active_children() if child.is_alive()] == []


def failing(number, tell):
    tell("first step", 0.0)
    if number:
        raise UserError("row 1 cannot be trained")
    time.sleep(0.1)
    return RunFolder(Path("none"))
