"""The paper's numbers: as it prints them, where they belong, and marked where they cannot be right."""

import json
import os
from pathlib import Path

import pytest

from align.report.paper import JAILBREAKV, leakage, paper_name, published, tables


@pytest.mark.parametrize(
    ("of", "value", "table"),
    [
        (("llava_7b", "t_sft", "safebench"), 96.4, "table 2"),
        (("llava_7b", "mm_sft", "safebench"), 99.2, "table 2"),
        (("llava_7b", "t_sft", "vlsbench"), 13.99, "table 16"),
        (("qwen2_vl_7b", "mm_sft", "vlsbench"), 78.39, "table 16"),
        (("llava_7b", "t_unlearning", "mmvet"), 0.0, "table 2"),
        (("llava_7b", "vanilla", "mme_cognition"), 355.0, "table 2"),
        (("llava_7b", "vanilla", "mm_safetybench_sd_typo"), 20.11, "table 11"),
        (("qwen2_vl_7b", "vanilla", "vlsbench.text"), 29.5, "table 5"),
        (("llava_7b", "safety_prompt", "vlsbench"), 44.5, "figure 7"),
        (("gpt_4o", "vanilla", "vlsbench"), 21.43, "table 16"),
    ],
)
def test_a_number_stands_where_it_belongs(of, value, table):
    found = published(*of)
    assert (found.value, found.table) == (value, table)


def test_labels_of_vlsbench_are_apart():
    of = {
        measure: published("qwen2_vl_7b", "mm_sft", "vlsbench", measure).value
        for measure in ("refusal", "warning", "unsafe")
    }
    assert of == {"refusal": 15.55, "warning": 62.83, "unsafe": 21.61}


@pytest.mark.parametrize(
    "of",
    [
        ("llava_7b", "mm_ppo", "nothing"),
        ("qwen2_vl_7b", "t_unlearning", "vlsbench"),
        ("mini_llava", "t_sft", "vlsbench"),
    ],
)
def test_what_the_paper_has_not_is_none(of):
    assert published(*of) is None


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("llava_7b", "llava_7b"),
        ("llava_7b_full", "llava_7b"),
        ("llava-hf/llava-1.5-7b-hf", "llava_7b"),
        ("llava-hf/llava-1.5-13b-hf", "llava_13b"),
        ("somebody/llava-1.5-7b-hf", "somebody/llava-1.5-7b-hf"),
        ("Qwen/Qwen2-VL-7B-Instruct", "qwen2_vl_7b"),
        ("OpenGVLab/InternVL2_5-8B", "internvl2_5_8b"),
        ("gpt-4o", "gpt_4o"),
        ("gpt-4o-mini", "gpt_4o_mini"),
        ("llava-v1.6-7b", "llava_v1_6_7b"),
    ],
)
def test_models_are_known_by_file_folder_or_hub_id(model, name):
    assert paper_name(model) == name


def test_averages_are_of_their_cells_and_a_printed_one_that_is_not_is_marked():
    found = published("llava_13b", "t_sft", "jailbreakv")
    assert found.value == 99.82  # (99.64 + 100) / 2
    assert found.doubt == "printed as 95.53; 99.82 is the mean of its cells"
    assert published("llava_7b", "vanilla", "jailbreakv").doubt is None  # (59.29 + 42.85) / 2 = 51.07, as printed
    found = published("llava_7b", "t_sft", "mm_safetybench")
    assert (found.value, found.doubt) == (62.45, "printed as 66.45; 62.45 is the mean of its cells")


def test_a_share_that_no_count_gives_is_marked():
    assert "no share of 500 items is 50.61 %" in published("llava_7b", "vanilla", "safebench").doubt
    assert published("llava_7b", "vanilla", "jailbreakv_jailbreak").doubt is None  # 120 of 280 is 42.857, cut
    assert published("llava_7b", "mm_sft", "safebench").doubt is None


def test_leakage_of_both_judges():
    (r1, r2), (other_r1, other_r2) = leakage("harmbench")
    assert (r1.value, r2.value, r1.judge) == (30.91, 30.0, "LlamaGuard3-11B-Vision")
    assert (other_r1.value, other_r2.value) == (56.36, 52.0)
    assert "no share of 110 items is 52.0 %" in other_r2.doubt
    assert leakage("vlsbench") == []


@pytest.fixture
def shared():
    folder = os.environ.get("ALIGN_SHARED")
    file = Path(folder or ".", "paper", "tables.json")
    if folder is None or not file.is_file():
        pytest.skip("ALIGN_SHARED is not set, or has no paper/tables.json")
    return json.loads(file.read_text())


def test_every_number_is_the_one_that_was_read_from_the_paper(shared):
    """Against a second reading of its tables, kept apart from this project."""
    names = {
        "table 2": "table_2_vsil_and_ability",
        "table 16": "table_16_vlsbench",
        "table 11": "table_11_mm_safetybench",
    }
    for table, name in names.items():
        ours = tables()[table]
        theirs = [[row[key] for key in ("model", "method", *ours["columns"])] for row in shared[name]["rows"]]
        assert ours["rows"] == theirs
        assert ours["judge"] in shared[name]["judge"]
    assert {row[0]: row[1:] for row in tables()["table 1"]["rows"]} == shared["table_1_leakage"]["rows"]
    assert {row[0]: row[1:] for row in tables()["table 7"]["rows"]} == shared["table_7_leakage"]["rows"]
    assert {row[0]: row[2:] for row in tables()["figure 7"]["rows"]} == shared["figure_7_safety_prompt"]["rows"]
    inputs = {(row[0], row[2]): row[3:] for row in tables()["table 5"]["rows"]}
    assert inputs == {
        (model, seen): v for model, of in shared["table_5_inputs"]["rows"].items() for seen, v in of.items()
    }


def test_every_listed_misprint_of_a_cell_is_marked(shared):
    """And no cell of table 2 besides, but for one average that the list has not: 81.93 for a mean of 81.96."""
    averages = {"jailbreakv_avg": "jailbreakv", "average": "mm_safetybench"}
    listed = set()
    for misprint in shared["misprints"]:
        words = misprint["where"].split()
        if words[0] in ("table_2", "table_11") and "/" in words[1]:
            model, method = words[1].split("/")
            name = averages.get(words[2], words[2])
            found = published(model, method, name)
            assert found.doubt, misprint
            if "recomputed" in misprint:
                assert found.value == misprint["recomputed"]
            listed.add((words[0], model, method, name))
    marked = {
        ("table_2", model, method, name)
        for model, method, *_ in tables()["table 2"]["rows"]
        for name in (*JAILBREAKV, "jailbreakv", "safebench", "vlsafe")
        if published(model, method, name).doubt
    }
    assert marked - listed == {("table_2", "llava_7b", "mm_sft", "jailbreakv")}
    assert {one for one in listed if one[0] == "table_2"} <= marked
    assert "MM-PPO" in published("llava_7b", "mm_ppo", "mm_safetybench_sd").doubt
    assert "never exceeds 800" in published("llava_7b", "vanilla", "mme_perception").doubt
