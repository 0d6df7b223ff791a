"""Comparisons of the controlled track: its own table, figure and conclusion, and no arms that differ in more."""

import json
import re

import pytest
from omegaconf import OmegaConf

from align.cli import main
from align.run_folder import RunFolder
from tests.compare.conftest import ARMS


@pytest.mark.slow
@pytest.mark.long
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
