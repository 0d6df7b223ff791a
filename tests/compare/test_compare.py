"""The comparison: every arm trained and evaluated once, reused, and set against the others on the same items."""

import json
import random
from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

from align.cli import main
from align.commands.arms import plan
from align.config.compose import compose
from align.miniature.rows import draw_twin
from align.settings import CompareConfig
from tests.compare.conftest import ARMS
from tests.support.unanswered import stored


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


@pytest.mark.slow
def test_defences_are_rows_with_their_own_settings_and_their_cost(model_file, tmp_path):
    several = ["recipe=t_sft", "defence=ecso,detector", "defence_settings.detector.unclear=pass"]
    assert main(["compare", f"model={model_file}", f"output_dir={tmp_path / 'out'}", *several]) == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]}
    assert list(rows) == ["vanilla", "detector", "ecso", "t_sft"]
    costs = {name: row["results"]["mini_vsil"]["cost"] for name, row in rows.items()}
    assert [(it["responses"], it["calls"]) for it in costs.values()] == [(6, 6), (6, 12), (6, 24), (6, 6)]
    text = (tmp_path / "out" / "paper.md").read_text()
    of_defences = text[text.index("Defences and their cost") :]
    lines = [line.split(" | ") for line in of_defences.splitlines() if line.startswith("| paper |")][:3]
    assert [line[2] for line in lines] == ["no alignment", "detector", "ECSO"]


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


def test_what_no_table_would_show_is_not_evaluated(model_file, tmp_path):
    arguments = [f"model={model_file}", f"output_dir={tmp_path}", ARMS, "defence=safety_prompt"]
    _, references = plan(compose(CompareConfig, arguments))
    assert [evaluation.name for evaluation in references[str(model_file)]] == ["vanilla"]


@pytest.mark.parametrize(("words", "strategy"), [([], "no"), (["override.train.save_steps=1"], "steps")])
def test_only_who_asks_for_checkpoints_of_the_miniature_gets_them(words, strategy):
    cells, _ = plan(compose(CompareConfig, ["recipe=t_sft", *words]))
    assert cells["mini_llava"][0].config.train["save_strategy"] == strategy
