"""The paper's own cells give its printed averages and totals, but for the misprints that are known;
rates here are made the same way.
"""

import json
from collections import Counter

import pytest

from align.evaluation.metrics import wilson

HALF_A_DIGIT = 0.0051
CUT = 0.035
"""Some cells are cut where others are rounded (97.857 is printed as 97.85): an average within this is no misprint."""


@pytest.fixture(scope="module")
def tables(shared):
    return json.loads((shared / "paper" / "tables.json").read_text())


def misprints(tables, table):
    return {
        entry["where"]: entry["recomputed"]
        for entry in tables["misprints"]
        if entry["where"].startswith(table) and "recomputed" in entry
    }


def test_the_averages_of_jailbreakv(tables):
    wrong = {}
    for row in tables["table_2_vsil_and_ability"]["rows"]:
        mean = (row["jailbreakv_raw"] + row["jailbreakv_jailbreak"]) / 2
        if abs(mean - row["jailbreakv_avg_printed"]) > CUT:
            wrong[f"table_2 {row['model']}/{row['method']} jailbreakv_avg"] = pytest.approx(mean, abs=2 * HALF_A_DIGIT)
    assert misprints(tables, "table_2") == wrong


def test_the_averages_of_mm_safetybench(tables):
    wrong = {}
    for row in tables["table_11_mm_safetybench"]["rows"]:
        mean = sum(row[key] for key in ("text_only", "stable_diffusion", "typo", "stable_diffusion_typo")) / 4
        if abs(mean - row["average_printed"]) > CUT:
            wrong[f"table_11 {row['model']}/{row['method']} average"] = pytest.approx(mean, abs=2 * HALF_A_DIGIT)
    assert misprints(tables, "table_11") == wrong


def test_the_totals_of_vlsbench_are_refusals_and_warnings_of_one_number_of_items(tables):
    rows = tables["table_16_vlsbench"]["rows"]
    fits = Counter()
    for row in rows:
        assert row["refusal"] + row["warning"] == pytest.approx(row["total"], abs=0.0201), row
        for n in (2241, 2244):
            counts = [round(row[key] * n / 100) for key in ("refusal", "warning", "total")]
            printed = all(
                abs(100 * count / n - row[key]) <= HALF_A_DIGIT
                for count, key in zip(counts, ("refusal", "warning", "total"), strict=True)
            )
            fits[n] += printed
    assert fits[2244] == 20  # as tables.json notes: three items were dropped later
    assert fits[2244] > fits[2241]


def test_the_paper_s_difference_on_vlsbench_is_beyond_the_intervals_of_its_two_rates(tables):
    """Qwen2-VL-7B: MM-SFT 78.39 against T-SFT 67.42; at n = 2,241 the 95% intervals do not meet."""
    rates = {(row["model"], row["method"]): row["total"] for row in tables["table_16_vlsbench"]["rows"]}
    image, text = (wilson(round(rates["qwen2_vl_7b", method] * 22.41), 2241) for method in ("mm_sft", "t_sft"))
    assert text[1] < image[0]
