"""Arms against each other, from run folders with known winners: signs, words, and what is left out."""

import json
import re

import pytest

from align.files import write_json
from align.report.arms import arms_of
from align.report.comparisons import compare_arms as compare
from align.report.comparisons import conclusions
from align.report.run_results import Evaluated
from align.report.tables.all_tables import tables_of
from align.report.tables.differences import difference_tables
from align.report.tables.markdown import markdown as written
from tests.support.evaluated_runs import run

YES, NO = (True,) * 100, (False,) * 100


def arm(folder, name, vsil, free, twin, benign=YES, **more):
    """A run of the controlled track, or with `track`, of another; each set is given item by item."""
    kinds = {
        "leaky": ("vsil", vsil),
        "free": ("vsil_free", free),
        "twins": ("twin", twin),
        "benign": ("benign", benign),
    }
    defaults = {"track": "controlled", "name": name, "view": "image"}
    return run(folder / f"{name}-{more.get('method', 'sft')}-{more.get('seed', 0)}", sets=kinds, **(defaults | more))


def compare_arms(runs):
    return compare([Evaluated(it) for it in runs])


def markdown(comparisons):
    return written(difference_tables(comparisons))


def found(*runs):
    comparisons, notes = compare_arms(runs)
    return {(c["a"], c["b"], *c["sets"]): c for c in comparisons}, conclusions(comparisons), notes


def test_where_the_harm_is_stated_decides(tmp_path):
    differences, (sentence,), notes = found(
        arm(tmp_path, "text_leak", YES, NO, NO),
        arm(tmp_path, "image_leak", YES, NO, NO),
        arm(tmp_path, "image_free", NO, YES, YES),
    )
    stated = differences["image_free", "image_leak", "free"]
    assert (stated["difference"], stated["high"], stated["n"], stated["seeds"]) == (1.0, 1.0, 100, [0])
    assert stated["low"] > 0.9
    assert stated["by_seed"][0]["mcnemar_p_value"] < 1e-20
    assert differences["image_free", "image_leak", "leaky"]["difference"] == -1.0
    interaction = differences["image_free", "image_leak", "free", "leaky"]
    assert (interaction["kind"], interaction["difference"], interaction["n"]) == ("interaction", 2.0, 200)
    assert differences["image_leak", "text_leak", "free", "leaky"]["difference"] == 0
    assert sentence.startswith("m, controlled track, SFT, seed 0: on requests whose harm only the image shows, ")
    facts = [
        "gives more safe responses (+100.0 points [94.1, 100.0])",
        "more unsafe images from their safe twins (+100.0 points [94.1, 100.0])",
        "no significant difference (95% interval includes 0) in safe responses (+0.0 points [-2.8, 2.8])",
        "interaction of arm and leak is +200.0 points [190.6, 200.0] on a scale from -200 to 200",
        "does not show how large the effect is for other models, data or amounts of training",
        "Only one seed was trained",
    ]
    assert [fact for fact in facts if fact not in sentence] == []
    assert sorted(facts, key=sentence.index) == facts
    assert notes == []


def test_an_arm_that_refuses_everything_is_not_said_to_protect(tmp_path):
    _, (sentence,), _ = found(
        arm(tmp_path, "image_leak", YES, NO, NO), arm(tmp_path, "image_free", YES, YES, NO, benign=NO)
    )
    assert "gives more safe responses" in sentence
    assert (
        "no significant difference (95% interval includes 0) in distinguishing unsafe images from their safe twins"
        in sentence
    )
    assert "adding the image" not in sentence  # there is no text_leak to compare with


def test_an_arm_that_loses_is_said_to_lose(tmp_path):
    some = (True,) * 50 + (False,) * 50
    _, (sentence,), _ = found(
        arm(tmp_path, "t_sft", YES, some, some, track="paper", view="text"),
        arm(tmp_path, "mm_sft", NO, (True,) * 20 + (False,) * 80, NO, track="paper"),
    )
    assert sentence.startswith(
        "m, paper track, seed 0: where only the image shows the danger, MM-SFT compared with T-SFT "
    )
    assert "T-SFT gives fewer safe responses (-30.0 points [" in sentence
    assert "fewer unsafe images from their safe twins (-50.0 points [" in sentence
    assert "where the text shows the danger, it gives fewer safe responses (-100.0 points [" in sentence
    assert re.search(r"interaction, .*, is \+70\.0 points \[", sentence)


def test_several_seeds_are_one_difference(tmp_path):
    runs = []
    for seed, good in enumerate((90, 80, 70)):
        runs.append(arm(tmp_path, "text_leak", YES, NO, NO, seed=seed))
        runs.append(arm(tmp_path, "image_leak", YES, (True,) * good + (False,) * (100 - good), NO, seed=seed))
    differences, _, _ = found(*runs)
    gain = differences["image_leak", "text_leak", "free"]
    assert (gain["difference"], gain["n"], gain["seeds"]) == (pytest.approx(0.8), 300, [0, 1, 2])
    assert [one["difference"] for one in gain["by_seed"]] == [0.9, 0.8, 0.7]
    assert gain["low"] < 0.6  # three seeds at .9, .8, .7: their mean's error is .058, t at 2 degrees of freedom 4.3
    assert "| m | SFT | image_leak minus text_leak | free | +80.0 [" in markdown([gain])


def test_methods_with_opposite_results_are_told_apart_in_every_text(tmp_path):
    runs = [
        arm(tmp_path, "image_leak", YES, NO, NO, method="sft"),
        arm(tmp_path, "image_free", YES, YES, YES, method="sft"),
        arm(tmp_path, "image_leak", YES, YES, YES, method="dpo"),
        arm(tmp_path, "image_free", YES, NO, NO, method="dpo"),
    ]
    comparisons, _ = compare_arms(runs)
    text = markdown(comparisons)
    assert "| m | SFT | image_free minus image_leak | free | +100.0 [" in text
    assert "| m | DPO | image_free minus image_leak | free | -100.0 [" in text
    sft, dpo = conclusions(comparisons)
    assert sft.startswith("m, controlled track, SFT, seed 0: ")
    assert "gives more safe responses" in sft
    assert dpo.startswith("m, controlled track, DPO, seed 0: ")
    assert "gives fewer safe responses" in dpo


WHY = "stopped at step 2: NLL(harmful answer) is 9, above train.max_harmful_loss=8; the rows of this step: h/1, b/1"


def test_a_stopped_run_is_no_controlled_comparison_and_the_others_are(tmp_path):
    arms = {"text_leak": NO, "image_leak": NO, "image_free": YES}
    runs = [
        arm(
            tmp_path, name, YES, free, free, seed=seed, **({"stopped": WHY} if (name, seed) == ("text_leak", 0) else {})
        )
        for name, free in arms.items()
        for seed in (0, 1)
    ]
    differences, (sentence,), notes = found(*runs)
    assert differences["image_leak", "text_leak", "free"]["seeds"] == [1]
    assert differences["image_free", "image_leak", "free"]["seeds"] == [0, 1]
    assert sentence.startswith("m, controlled track, SFT, seeds 0, 1: ")
    assert notes == [
        "m, controlled track, SFT: text_leak seed 0 stopped at step 2 (NLL(harmful answer) is 9, above "
        "train.max_harmful_loss=8; "
        "the rows of this step: h/1, b/1); it took fewer steps, so it is not compared with the others",
        "m, controlled track, SFT: image_leak and text_leak: seed 0 finished its training for only one of the two",
    ]


def test_where_every_seed_of_an_arm_stopped_nothing_is_said_of_it(tmp_path):
    differences, sentences, notes = found(
        arm(tmp_path, "image_leak", YES, NO, NO, stopped=WHY), arm(tmp_path, "image_free", YES, YES, YES)
    )
    assert (differences, sentences) == ({}, [])
    assert notes[1] == "m, controlled track, SFT: image_free has no other arm to compare with"


def test_a_stopped_run_of_the_paper_track_is_compared_and_said(tmp_path):
    differences, _, (note,) = found(
        arm(tmp_path, "t_sft", YES, NO, NO, track="paper", view="text", stopped=WHY),
        arm(tmp_path, "mm_sft", YES, YES, YES, track="paper"),
    )
    assert differences["mm_sft", "t_sft", "free"]["difference"] == 1.0
    assert note.startswith("m, paper track, SFT: t_sft seed 0 stopped at step 2 (NLL")
    assert note.endswith("; it is compared despite fewer steps")


def test_mcnemar_is_not_asked_where_images_repeat(tmp_path):
    images = [f"image {i // 2}" for i in range(100)]
    differences, _, _ = found(
        arm(tmp_path, "text_leak", YES, NO, NO, clusters=images),
        arm(tmp_path, "image_leak", YES, YES, NO, clusters=images),
    )
    assert differences["image_leak", "text_leak", "free"]["by_seed"][0]["mcnemar_p_value"] is None


def test_what_is_left_out_is_said(tmp_path):
    text = [arm(tmp_path, "text_leak", YES, NO, NO, seed=seed) for seed in (0, 1)]
    image = [arm(tmp_path, "image_leak", YES, YES, YES, seed=0), arm(tmp_path, "image_leak", YES, YES, YES, seed=2)]
    odd = arm(tmp_path, "an_arm_of_mine", YES, YES, YES)
    write_json(image[0].evaluation / "leaky" / "settings.json", {"generation": {"max_new_tokens": 8}, "rows": "hash"})
    differences, _, notes = found(*text, *image, odd)
    assert ("image_leak", "text_leak", "leaky") not in differences
    assert notes == [
        "m, controlled track, SFT: image_leak and text_leak: seed 2 finished its training for only one of the two",
        "m, controlled track, SFT: image_leak and text_leak: seed 1 finished its training for only one of the two",
        "m, controlled track, SFT: image_leak and text_leak: leaky: evaluated with different settings (generation)",
        "m, controlled track, SFT: an_arm_of_mine has no other arm to compare with",
    ]


def test_a_withheld_set_is_said(tmp_path):
    runs = [run(tmp_path / "t"), run(tmp_path / "mm", name="mm_sft", view="image", invalid=4)]
    comparisons, notes = compare_arms(runs)
    assert comparisons == []
    assert notes == [
        "m, paper track, SFT: mm_sft and t_sft: mini_vsil: withheld for mm_sft seed 0 (too many responses without a "
        "verdict)"
    ]


def test_sets_judged_by_the_same_with_another_prompt_are_not_compared(tmp_path):
    runs = [run(tmp_path / "t"), run(tmp_path / "mm", name="mm_sft", view="image")]
    for it, prompt in zip(runs, ("aaaa", "bbbb"), strict=True):
        summary = it.evaluation / "mini_vsil" / "summary.rule.json"
        summary.write_text(json.dumps(json.loads(summary.read_text()) | {"prompt_hash": prompt}))
    comparisons, notes = compare_arms(runs)
    assert comparisons == []
    assert re.search(r"judged differently \(rule 1 \[[0-9a-f]{6}\], rule 1 \[[0-9a-f]{6}\]\)", notes[0])
    arms, _ = arms_of([Evaluated(it) for it in runs])
    assert "different judges or judge settings: do not compare" in written(tables_of(arms, []))


def test_sets_judged_by_others_are_not_compared(tmp_path):
    runs = [run(tmp_path / "t"), run(tmp_path / "mm", name="mm_sft", view="image")]
    summary = runs[1].evaluation / "mini_vsil" / "summary.rule.json"
    summary.write_text(summary.read_text().replace('"judge_version": "1"', '"judge_version": "2"'))
    note = "m, paper track, SFT: mm_sft and t_sft: mini_vsil: judged differently (rule 1, rule 2)"
    assert compare_arms(runs) == ([], [note])


def test_two_runs_of_one_name_and_seed_are_not_two_seeds(tmp_path):
    arms, (note,) = arms_of([Evaluated(run(tmp_path / name)) for name in ("a", "b")])
    assert "are both t_sft of m with seed 0" in note
    assert "not two seeds of one arm" in note
    assert [arm.row["apart"] for arm in arms] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert f"| T-SFT, {tmp_path / 'a'} |" in written(tables_of(arms, []))
