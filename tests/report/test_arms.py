"""Which runs are seeds of one arm, which are not, and what is said of a grid with gaps."""

import pytest

from align.cli import main
from align.report.arms import arms_of
from align.report.find_runs import collect
from align.report.findings import findings
from align.report.run_results import Evaluated
from tests.support.evaluated_runs import run, second_judge
from tests.support.table_lines import NO, YES


def test_seeds_are_one_line_and_a_set_that_one_seed_lacks_says_so(tmp_path, capsys):
    run(tmp_path / "0", sets={"a": ("vsil", YES), "b": ("vsil", YES)}, seed=0)
    run(tmp_path / "1", sets={"a": ("vsil", NO)}, seed=1)
    assert main(["table", f"runs={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert "| paper | m | T-SFT | SFT | 0,1 | 3 | 50.0 [" in text
    assert "<br>only seed 0 |" in text
    assert "- m, paper track, T-SFT: b was evaluated only for seed 0" in text


def test_what_a_grid_lacks_is_said(tmp_path):
    sets = {"a": ("vsil", YES), "b": ("benign", YES)}
    for model in ("one", "two"):
        for name, view in (("t_sft", "text"), ("mm_sft", "image")):
            for seed in (0, 1):
                if (model, name) != ("two", "mm_sft") and (model, name, seed) != ("one", "t_sft", 1):
                    run(tmp_path / f"{model}-{name}-{seed}", name=name, view=view, model=model, seed=seed, sets=sets)
    run(tmp_path / "vanilla", name="vanilla", method=None, view=None, model="one", sets={"a": ("vsil", NO)})
    notes = findings(collect(tmp_path)[0]).notes
    assert "one, paper track, T-SFT: no finished run with seed 1; other arms have it" in notes
    assert "two, paper track: no finished run of mm_sft; other models have it" in notes
    assert "one, paper track, no alignment: no verdicts on b; other arms have them" in notes


def test_two_runs_of_one_seed_stand_apart_and_are_not_compared(tmp_path):
    for folder in ("a", "b"):
        run(tmp_path / folder, sets={"a": ("vsil", YES), "f": ("vsil_free", NO)})
    run(tmp_path / "c", name="mm_sft", view="image", sets={"a": ("vsil", YES), "f": ("vsil_free", YES)})
    found = findings(collect(tmp_path)[0])
    assert [arm.row.get("apart") for arm in found.arms] == [str(tmp_path / "a"), str(tmp_path / "b"), None]
    assert found.comparisons == []
    assert any("both t_sft of m with seed 0" in note for note in found.notes)


def test_models_as_they_are_are_not_pooled_as_seeds(tmp_path):
    for seed in (0, 1):
        run(tmp_path / str(seed), name="vanilla", method=None, view=None, seed=seed)
    assert len(findings(collect(tmp_path)[0]).arms) == 2


def test_arms_of_the_controlled_track_that_differ_in_more_are_not_compared_and_the_difference_is_named(tmp_path):
    sets = {"a": ("vsil", YES), "f": ("vsil_free", NO)}
    for name in ("text_leak", "image_leak"):
        run(tmp_path / name, name=name, track="controlled", view="image", sets=sets)
    found = findings(collect(tmp_path)[0])
    assert found.comparisons == []
    assert any("arms of the controlled track are not compared: " in note for note in found.notes)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"train": {"learning_rate": 1.0}}, "train.learning_rate is 0.001 in one and 1.0 in the other"),
        ({"tuning": "full"}, "tuning is None in one and 'full' in the other"),
        ({"base": "another"}, "base is None in one and 'another' in the other"),
        ({"view": "image"}, "view is 'text' in one and 'image' in the other"),
    ],
)
def test_runs_of_one_name_that_were_trained_otherwise_are_no_seeds_of_one_arm(tmp_path, other, said):
    settings = {"train": {"learning_rate": 0.001, "seed": 0, "output_dir": "a"}}
    run(tmp_path / "0", seed=0, **settings)
    run(tmp_path / "1", seed=1, **(settings | other))
    found = findings(collect(tmp_path)[0])
    assert [arm.row["apart"] for arm in found.arms] == [str(tmp_path / "0"), str(tmp_path / "1")]
    assert any(said in note for note in found.notes)


def test_seeds_differ_in_seed_and_place(tmp_path):
    for seed in (0, 1):
        train = {
            "learning_rate": 0.001,
            "seed": seed,
            "output_dir": f"runs/{seed}",
            "per_device_train_batch_size": 4 + seed,
            "dataloader_num_workers": 2 * seed,
        }
        run(tmp_path / str(seed), seed=seed, train=train)
    assert [arm.row["seed"] for arm in findings(collect(tmp_path)[0]).arms] == ["0,1"]


def test_seeds_apart_keep_the_folder_of_what_stood_apart(tmp_path, capsys):
    for folder in ("a", "b"):
        run(tmp_path / folder)
    assert main(["table", f"runs={tmp_path}", "seeds=apart", "tables=rates"]) == 0
    text = capsys.readouterr().out
    assert f"| T-SFT, {tmp_path / 'a'} |" in text
    assert f"| T-SFT, {tmp_path / 'b'} |" in text


def test_judges_beside_the_main_one_are_pooled_by_name_and_one_that_a_seed_lacks_is_said(tmp_path):
    runs = [run(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    for it in runs:
        second_judge(it.evaluation / "mini_vsil", ["refusal", "other", "other", "other"])
    second_judge(runs[0].evaluation / "mini_vsil", ["refusal", "refusal", "other", "other"], judge="a_judge")
    found = findings(collect(tmp_path)[0])
    (other,) = found.arms[0].row["results"]["mini_vsil"]["other_judges"]
    assert (other["judge"], other["n"], other["rate"]) == ("refusal_match", 8, 0.25)
    assert "m, paper track, T-SFT: mini_vsil was judged by a_judge for only some of its seeds" in found.notes


def test_seeds_that_each_start_from_their_own_adapter_are_one_arm(tmp_path):
    of_start = {"start": "sometimes_refusing", "method": "ppo"}
    runs = [
        run(tmp_path / str(seed), "mm_ppo", "image", seed=seed, base=f"base with runs/{seed}/checkpoint", **of_start)
        for seed in (0, 1)
    ]
    other = run(tmp_path / "2", "mm_ppo", "image", seed=2, base="base with runs/2", start="mm_sft", method="ppo")
    arms, notes = arms_of([Evaluated(it) for it in runs])
    assert [arm.row["seed"] for arm in arms] == ["0,1"]
    assert not notes
    assert len(arms_of([Evaluated(it) for it in (*runs, other)])[0]) == 3
