"""Model cards: what a run's files say, nothing that they do not, and no path of the machine."""

import json
import shutil
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from align.cli import main
from align.config.compose import compose_run
from align.files import read_json
from align.report.names import percent, shortened
from align.report.run_results import row_of
from align.run_folder import RunFolder
from align.settings import ModelSettings
from align.tools.publish.card import base_name, card, name_base, plain
from align.tools.publish.limits import limits
from align.training.run import train
from tests.support.small_run import arguments

EVALUATION = ["benchmark=mini_vsil,mini_benign", "judge=rule,refusal_match", "limit=3", "generation.max_new_tokens=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("home") / "run"


@pytest.fixture(scope="module")
def run(tiny, folder):
    """A run of two steps whose command names files by absolute paths."""
    words = arguments(tiny("llava"), folder, "train.max_steps=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["/home/somebody/align/train.py", *words])
        return train(compose_run(words))


def text_of(run):
    return (run.weights / "README.md").read_text(encoding="utf-8")


def section(text, name):
    return text.partition(f"\n## {name}\n\n")[2].partition("\n\n## ")[0]


def test_a_trained_run_has_a_card_of_its_facts(run, tiny):
    found = ModelCard.load(run.weights / "README.md")
    assert (found.data.library_name, found.data.pipeline_tag) == ("peft", "image-text-to-text")
    assert found.data.base_model is None
    assert {"sft", "lora", "safety-alignment"} <= set(found.data.tags)
    text, manifest = text_of(run), run.manifest()
    assert "More Information Needed" not in text
    trained = dict(line.strip("| ").split(" | ", 1) for line in section(text, "What was trained").splitlines())
    assert trained["base model"] == tiny("llava").name
    assert trained["LoRA"] == "r 16, alpha 32, dropout 0.0"
    assert trained["global batch size"] == "8 rows, on 1 process"
    assert (trained["learning_rate"], trained["seed"], trained["optimizer steps"]) == ("0.01", "0", "2")
    assert f"language_model {manifest['trainable_parameters']:,} of" in trained["trainable parameters"]
    assert "| harmful | miniature | image_harmful | 24 | image 24 |" in section(text, "Data")
    assert manifest["data"]["fingerprint"] in section(text, "Data")
    assert "label conflicts (a view hides the only evidence for a response): none" in section(text, "Data")
    assert section(text, "Evaluation") == "Not evaluated."
    assert "with one seed (0)" in section(text, "Limits")
    assert manifest["git_commit"] is None or manifest["git_commit"] in section(text, "Made by")
    assert f"torch {manifest['versions']['torch']}" in section(text, "Made by")


def test_an_evaluation_is_in_the_card_with_n_interval_judge_and_counts(run):
    assert main(["eval", f"run={run.path}", *EVALUATION]) == 0
    lines = [
        line.strip("| ").split(" | ") for line in section(text_of(run), "Evaluation").splitlines() if line[:1] == "|"
    ]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    assert [(row["benchmark"], row["judge, version"]) for row in rows] == [
        (name, judge) for name in ("mini_vsil", "mini_benign") for judge in ("rule 1", "refusal_match 1")
    ]
    for row in rows:
        judge = row["judge, version"].removesuffix(" 1").replace("\\", "")
        stored = read_json(run.evaluation / row["benchmark"] / f"summary.{judge}.json")
        assert row["%"] == percent(stored["rate"])
        assert row["95% interval"] == f"{percent(stored['low'])} to {percent(stored['high'])}"
        counts = stored["counts"]
        assert (row["n"], row["incoherent"], row["invalid"]) == ("3", str(counts["incoherent"]), str(counts["invalid"]))
    told = section(text_of(run), "Limits")
    assert "refusal_match: a word list." in told
    assert "Not measured: the effect of training on abilities." in told
    assert "Not evaluated" not in told
    assert "mini_vsil: only limit=3" in section(text_of(run), "Evaluation")


def test_no_path_of_the_machine_is_told(run, folder, tiny):
    """The command, the base and the trainer's own settings name absolute paths; the card names their last parts."""
    text = text_of(run)
    assert str(folder) in json.dumps(run.manifest())
    for secret in (str(folder.parent), str(tiny("llava").parent), "/tmp", "/home"):
        assert secret not in text
    assert f"train.py recipe=mm_sft model={tiny('llava').name} output_dir=run" in section(text, "Made by")


def test_writing_the_card_leaves_the_evaluation_valid(run):
    """An evaluation belongs to weights that it recognises; the card beside them is no part of them."""
    before = text_of(run)
    (run.weights / "README.md").unlink()
    assert main(["eval", f"run={run.path}", *EVALUATION]) == 0
    assert text_of(run) == before


def test_the_same_command_again_brings_a_lost_card_back(run, tiny, folder):
    before = text_of(run)
    (run.weights / "README.md").unlink()
    train(compose_run(arguments(tiny("llava"), folder, "train.max_steps=2")))
    assert text_of(run) == before


def test_a_merged_model_has_the_card_of_a_model(run, tmp_path):
    assert main(["merge", f"run={run.path}", f"output_dir={tmp_path / 'merged'}"]) == 0
    found = ModelCard.load(tmp_path / "merged" / "README.md")
    assert found.data.library_name == "transformers"
    assert "Measured with the adapter, before it was merged." in found.text
    assert "PeftModel" not in found.text
    assert str(tmp_path) not in found.text


def test_full_fine_tuning_is_a_model_of_its_own(tiny, tmp_path):
    full = train(compose_run(arguments(tiny("llava"), tmp_path / "full", "lora=null", "train.max_steps=1")))
    found = ModelCard.load(full.weights / "README.md")
    assert found.data.library_name == "transformers"
    assert "lora" not in found.data.tags
    assert "| trained in full | multi_modal_projector, language_model, output_head |" in found.text
    assert "LoRA, while the published comparison" not in found.text


def test_a_base_on_the_hub_is_linked(run, tmp_path):
    other = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    model = ModelSettings(name="llava", path="llava-hf/llava-1.5-7b-hf", revision="abc")
    other.write_config(replace(run.config(), model=model))
    found = card(other)
    assert (found.data.base_model, found.data.base_model_relation) == ("llava-hf/llava-1.5-7b-hf", "adapter")
    assert "| base model | llava-hf/llava-1.5-7b-hf, revision abc |" in found.text
    assert 'from_pretrained("llava-hf/llava-1.5-7b-hf")' in found.text


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf"),
        ("/home/me/my llava", "my llava"),
        ("./x/llava", "llava"),
    ],
)
def test_a_base_is_named_by_hub_id_or_last_part(path, name):
    config = compose_run(["recipe=mm_sft"]).config
    assert base_name(replace(config, model=ModelSettings(path=path))) == name
    assert base_name(config) == "mini_llava"


def test_limits_follow_from_facts(run):
    row = row_of(run) | {"results": {}}
    config = compose_run(["recipe=mm_sft"]).config

    def told(merged=False, stopped=None, **changed):
        model = replace(config.model, **changed.pop("model", {}))
        return "\n".join(limits(replace(config, model=model, **changed), row | {"stopped": stopped}, merged))

    assert "Synthetic data" in told()
    assert "Synthetic data" not in told(data={})
    assert "LoRA, while the published comparison trained all parameters" in told()
    assert "LoRA" not in told(lora=None)
    assert "LoRA" not in told(track="controlled")
    assert "Training stopped at step 41: the loss; it did not" in told(stopped="stopped at step 41: the loss")
    assert "Trained on a base in nf4; on the base in full precision its responses" in told(
        model={"quantization": "nf4"}
    )
    assert "nf4; merged into the base in full precision" in told(True, model={"quantization": "nf4"})
    assert "label conflicts" in told(allow_label_conflict=True)
    assert "Not evaluated" in told()


def test_what_a_set_does_not_measure_is_told(run):
    config, row = compose_run(["recipe=mm_sft"]).config, row_of(run)
    of_kind = {"judge": "other", "other_judges": []}
    for kinds, missing in [
        (("vsil", "ability"), "benign requests"),
        (("benign", "ability"), "harmful requests"),
        (("twin",), "abilities"),
        (("twin", "ability"), None),
    ]:
        results = {kind: of_kind | {"kind": kind} for kind in kinds}
        told = [line for line in limits(config, row | {"results": results}) if line.startswith("Not measured")]
        assert len(told) == (missing is not None)
        assert missing is None or missing in told[0]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("model=/home/me/llava", "model=llava"),
        ("data.x.path=/home/my user/rows.jsonl", "data.x.path=rows.jsonl"),
        ("data.x={source: local, path: /data/a b/x.jsonl, rows: 3}", "data.x={source: local, path: x.jsonl, rows: 3}"),
        ("a=/x/y,/z/w", "a=y,w"),
        ("from /home/me/a.jsonl and /home/me/b.jsonl", "from a.jsonl and b.jsonl"),
        ("/home/me/a.jsonl: 3 rows", "a.jsonl: 3 rows"),
        ("~/models/llava", "llava"),
        ("output_dir=/data/run/", "output_dir=run/"),
        ("file:///home/me/x", "x"),
        (
            "openai/clip, http://localhost:8000/v1, refused / safe, 1/2",
            "openai/clip, http://localhost:8000/v1, refused / safe, 1/2",
        ),
    ],
)
def test_absolute_paths_are_shortened(text, wanted):
    assert shortened(text) == wanted


def test_names_are_no_markup():
    assert plain("a|b\n<b>*c* [x](y) `z`") == r"a\|b &lt;b&gt;\*c\* \[x\](y) \`z\`"
    assert plain("mm_sft") == "mm_sft"
    assert plain("_x_") == r"\_x\_"


def test_a_card_can_be_given_a_base_that_others_can_load(run):
    named = ModelCard(name_base(str(card(run)), "owner/llava", adapter=True))
    assert 'AutoModelForImageTextToText.from_pretrained("owner/llava")' in named.text
    assert (named.data.base_model, named.data.library_name) == ("owner/llava", "peft")
