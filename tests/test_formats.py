"""docs/formats.md names every file of a run folder and every key of its JSON files."""

import json
import re
from pathlib import Path

import pytest

from align.cli import main
from align.config.compose import compose_run
from align.training.run import train
from tests.support.small_run import arguments

PAGE = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
EVALUATED = ["benchmark=mini_vsil,mini_twin", "limit=2", "generation.max_new_tokens=1", "judge=rule,refusal_match"]


def words(section):
    return set(re.findall(r"[\w.]+", SECTIONS[section]))


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run that dropped a row, was evaluated, and trains no more."""
    folder = tmp_path_factory.mktemp("formats")
    row = {"prompt": "what is this", "response": "a red ball"}
    rows = [row | {"id": f"r{i}"} for i in range(8)] + [row | {"id": "long", "response": "red " * 400}]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    part = f"data.own={{source: local, path: {folder / 'own.jsonl'}, role: benign}}"
    more = [part, "on_bad_row=drop", "train.max_steps=2", "train.save_steps=1"]
    it = train(compose_run(arguments(tiny("llava"), folder / "run", *more)))
    assert main(["eval", f"run={it.path}", *EVALUATED]) == 0
    return it


def test_every_file_of_a_run_folder_is_named(run):
    named = words("Run folder") | words("Evaluation")
    for path in run.path.rglob("*"):
        folders = path.relative_to(run.path).parts[:-1]
        if path.is_file() and not {"checkpoint", "checkpoints"} & set(folders):  # there are peft's and trl's own files
            form = re.sub(r"\.(rule|refusal_match)\.", ".<judge>.", path.name)
            assert form in named or f"`{form}`" in PAGE, path


def test_every_key_of_a_manifest_is_named(run):
    manifest = json.loads(run.manifest_file.read_text())
    assert manifest["data"]["dropped"] == {"too_long_for_model": ["own/long"]}
    assert {*manifest, *manifest["data"]} <= words("Run folder")


@pytest.mark.parametrize(("file", "section"), [("rows.jsonl", "Run folder"), ("steps.jsonl", "Run folder")])
def test_every_key_of_a_line_of_the_run_is_named(run, file, section):
    for line in (run.path / file).read_text().splitlines():
        assert set(json.loads(line)) <= words(section)


def test_every_key_of_an_evaluation_is_named(run):
    named = words("Evaluation")
    for folder in (run.evaluation / "mini_vsil", run.evaluation / "mini_twin"):
        for file in folder.iterdir():
            if file.suffix in (".json", ".jsonl"):
                for line in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
                    assert set(json.loads(line)) <= named, file
