"""What a comparison ends with: one small table, and one sentence."""

import pytest
from rich.console import Console

from align.report.answer import NOTHING, answer
from align.report.findings import findings
from align.report.run_results import Evaluated
from align.report.tables.brief import print_brief
from tests.report.test_comparisons import NO, YES, arm

MIXED = (True, False) * 50


def paper(folder, name, free, **more):
    view = "text" if name.startswith("t_") else "image"
    given = {"track": "paper", "view": view, "method": name.partition("_")[2]} | more
    return Evaluated(arm(folder, name, YES, free, free, **given))


@pytest.mark.parametrize(
    ("text", "image", "start", "number"),
    [
        (NO, YES, "No. ", "MM-SFT gives 100.0 points more safe responses than T-SFT"),
        (YES, NO, "Yes. ", "MM-SFT gives 100.0 points fewer safe responses than T-SFT"),
        (MIXED, MIXED, "Not shown. ", "MM-SFT gives 0.0 points more safe responses than T-SFT"),
    ],
)
def test_the_answer_is_the_sign_of_the_difference_and_its_interval(tmp_path, text, image, start, number):
    said = answer(findings([paper(tmp_path, "t_sft", text), paper(tmp_path, "mm_sft", image)]))
    assert said.startswith(start)
    assert number in said
    assert "1 seed)" in said


def test_methods_that_differ_are_not_one_answer(tmp_path):
    runs = [paper(tmp_path, "t_sft", NO), paper(tmp_path, "mm_sft", YES)]
    runs += [paper(tmp_path, "t_dpo", YES), paper(tmp_path, "mm_dpo", YES)]
    said = answer(findings(runs))
    assert not said.startswith(("No.", "Yes.", "Not shown."))
    assert "the same sign in 1 of 2 pairs" in said


def test_one_arm_answers_nothing(tmp_path):
    assert answer(findings([paper(tmp_path, "mm_sft", YES)])) == NOTHING


@pytest.mark.parametrize(
    ("width", "shown"),
    [(100, ["leaky", "free", "benign", "twins"]), (64, ["leaky", "free", "benign"]), (52, ["leaky", "free"])],
)
def test_the_small_table_has_a_line_for_each_arm_and_the_columns_that_fit(tmp_path, width, shown):
    found = findings([paper(tmp_path, "t_safe_unlearning", NO), paper(tmp_path, "mm_safe_unlearning", YES)])
    console = Console(width=width, record=True, quiet=False)
    print_brief(found.arms, console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    heading = " ".join(lines[: next(i for i, line in enumerate(lines) if line.startswith("─"))])
    assert [name for name in ("leaky", "free", "benign", "twins") if name in heading] == shown
    arms = [line.split()[0] for line in lines if not line.startswith((" ", "─", "arm", "Not shown"))]
    assert [name for name in arms if name] == ["T-SafeUnlearning", "MM-SafeUnlearning"]  # no name is broken
    (text,) = [line for line in lines if line.startswith("T-SafeUnlearning")]
    assert text.split()[1:5] == ["100.0", "(100-100)", "0.0", "(0-0)"]
    left = [line for line in lines if line.startswith("Not shown")]
    assert bool(left) == (len(shown) < 4)
    assert all("twins" in line for line in left)


def test_the_miniatures_table_fits_80_columns(tmp_path):
    """Its names and widest numbers: nothing is left out and no name is broken."""
    found = findings([paper(tmp_path, "mm_safe_unlearning", MIXED)])
    names = {"leaky": "mini_vsil", "free": "mini_vsil_free", "benign": "mini_benign", "twins": "mini_twin"}
    for arm_of in found.arms:
        results = arm_of.row["results"]
        arm_of.row["results"] = {names[name]: of for name, of in results.items() if name in names}
        arm_of.row["results"]["mini_ability"] = results["benign"] | {"kind": "ability"}
    console = Console(width=80, record=True, quiet=False)
    print_brief(found.arms, console)
    text = console.export_text()
    assert "Not shown" not in text
    assert "MM-SafeUnlearning " in text
