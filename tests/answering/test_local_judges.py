"""A judge that is loaded here, in commands: its verdicts, which folder is a judge, and which settings it may have."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from align.answering.chat_local import LocalChat
from align.cli import main
from align.errors import UserError
from tests.support.judge_server import judge_server
from tests.support.small_guard import JUDGED, LABELS, NO, QUESTIONS, YES, people, verdicts, write

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.mark.slow
def test_its_verdicts_are_those_of_people(guard, tmp_path):
    people(tmp_path)
    assert main(["calibrate", "path=items.jsonl", "judge=llamaguard", f"judge.path={guard}"]) == 0
    found = json.loads((tmp_path / "runs" / "calibration" / "items" / "calibration.llamaguard.json").read_text())
    assert (found["compared"], found["accuracy"]["value"], found["kappa"]["value"]) == (len(JUDGED), 1.0, 1.0)
    assert [(line["raw"], line["verdict"]) for line in verdicts(tmp_path)] == [
        (said, LABELS[said]) for said in JUDGED.values()
    ]
    assert {line["reason"] for line in verdicts(tmp_path) if line["verdict"] == "unsafe"} == {"S1"}


def test_it_judges_the_answers_of_an_evaluation_and_once(guard, chat, tmp_path, monkeypatch):
    rows = [{"id": f"r{i}", "prompt": QUESTIONS[i], "role": "harmful", "harm_in": "text"} for i in range(2)]
    write(tmp_path, rows)
    arguments = ["benchmark=local", "path=items.jsonl", "judge=llamaguard", f"judge.path={guard}"]
    with judge_server(answer=lambda number, prompt: (YES, NO)[number][0]) as server:
        answering = [f"generation.base_url={server.url}", "generation.model=answerer"]
        assert main(["eval", *answering, *arguments, "output_dir=run"]) == 0
        monkeypatch.setattr(LocalChat, "__init__", None)  # nor is it loaded again
        assert main(["eval", *answering, *arguments, "output_dir=again"]) == 0
    conversations = [
        [{"role": "user", "content": QUESTIONS[i]}, {"role": "assistant", "content": (YES, NO)[i][0]}] for i in range(2)
    ]
    read = chat._tokenizer.apply_chat_template(conversations, add_generation_prompt=True)["input_ids"]
    for run in ("run", "again"):
        result = json.loads((tmp_path / run / "evaluation" / "local" / "summary.llamaguard.json").read_text())
        assert (result["counts"]["unsafe"], result["counts"]["safe"], result["rate"]) == (1, 1, 0.5)
        assert result["judge_tokens"] == {"prompt": sum(map(len, read)), "new": 4 + 1}


def test_other_weights_in_the_same_folder_are_another_judge(guard, tmp_path):
    people(tmp_path)
    shutil.copytree(guard, tmp_path / "judge")
    command = ["calibrate", "path=items.jsonl", "judge=llamaguard", "judge.path=judge", "judge.max_new_tokens=4"]
    assert main(command) == 1  # "unsafe\nS1" takes four tokens, and an end: cut
    kept = load_file(tmp_path / "judge" / "model.safetensors")
    save_file(
        {key: torch.zeros_like(of) for key, of in kept.items()},
        tmp_path / "judge" / "model.safetensors",
        {"format": "pt"},
    )
    assert main(command) == 2  # nothing in common with people any more
    before, after = verdicts(tmp_path)[: len(JUDGED)], verdicts(tmp_path)[len(JUDGED) :]
    assert [line["id"] for line in before] == [line["id"] for line in after]
    assert all(a["raw"] != b["raw"] for a, b in zip(before, after, strict=True))
    assert main([*command[:-1], "judge.dtype=float32"]) == 2


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def as_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_a_layer(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def of_another_size(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (shutil.rmtree, "judge.path=judge: .*folder does not exist"),
        (as_pickle, "judge.path=judge: cannot be loaded: .*no file named model.safetensors"),
        (without("chat_template.jinja"), "judge.path=judge: .*no chat template.*judge.base_url="),
        (without("config.json"), "judge.path=judge: cannot be loaded: "),
        (without("tokenizer.json"), "judge.path=judge: cannot be loaded: "),
        (without_a_layer, "judge.path=judge: 1 of its weights are absent: model.layers.1.mlp.up_proj.weight"),
        (of_another_size, "judge.path=judge: cannot be loaded: "),
        (cut, "judge.path=judge: cannot be loaded: "),
    ],
)
def test_a_folder_that_is_no_judge_is_refused(guard, tmp_path, spoil, expected):
    shutil.copytree(guard, tmp_path / "judge")
    spoil(tmp_path / "judge")
    with pytest.raises(UserError, match=expected):
        LocalChat("judge", "auto", 8)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["judge.path=no/such/folder"], "judge.path=no/such/folder: this folder does not exist"),
        (["judge.dtype=half"], "judge.dtype=half: expected one of auto, float32, bfloat16, float16"),
        (["judge.batch_size=0"], "judge.batch_size=0: expected at least 1"),
        (["judge.base_url=http://localhost/v1", "judge.model=m"], "base_url and path are given"),
    ],
)
def test_settings_that_cannot_be_are_known_before_the_first_answer(guard, tmp_path, capsys, more, expected):
    write(tmp_path, [{"id": "r", "prompt": "item 0", "role": "harmful", "harm_in": "text"}])
    with judge_server() as server:
        answering = [f"generation.base_url={server.url}", "generation.model=answerer", "benchmark=local"]
        command = ["eval", *answering, "path=items.jsonl", "judge=llamaguard", f"judge.path={guard}", "output_dir=run"]
        assert main([*command, *more]) == 2
        assert server.answered == {}
    assert expected in capsys.readouterr().err
