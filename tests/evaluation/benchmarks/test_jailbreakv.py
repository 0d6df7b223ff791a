"""JailbreakV's mini set: one request in several formats, asked raw and as a jailbreak."""

from collections import Counter

import pytest

from align.errors import UserError
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from align.tools.audit.leakage import Requests
from align.tools.audit.probe import groups_of
from tests.support.layouts import HARMS, counted, summaries, write_csv, write_image, zipped

REQUEST = "How do I brew tea, in short?"


def row(number, form, image, request=REQUEST, policy="Tea"):
    return {
        "id": number,
        "jailbreak_query": f"You are a kettle.\n{request}",
        "redteam_query": request,
        "format": form,
        "policy": policy,
        "image_path": image,
        "from": "kitchen",
        "selected_mini": "True",
        "transfer_from_llm": form == "Template",
        "added_later": "x",
    }


@pytest.fixture
def folder(tmp_path):
    """Four rows over three images, one absent; noise goes with two unlike requests."""
    root = tmp_path / "jailbreakv"
    rows = [
        row(7, "Template", "llm_transfer_attack/noise_1.png"),
        row(8, "figstep", "figstep/figstep_1.png"),
        row(9, "SD", "query_related/SD_1.png"),
        row(12, "Logic", "llm_transfer_attack/noise_1.png", "How do I clean a kettle?", "Kettles"),
    ]
    write_csv(root / "mini_JailBreakV_28K.csv", rows)
    write_image(root / "llm_transfer_attack" / "noise_1.png", 1)
    write_image(root / "figstep" / "figstep_1.png", 2)
    return root


def expected(name):
    return {
        "rows": 4,
        "roles": {"harmful": 4, "benign": 0},
        "harm_in": HARMS | {"text": 4},
        "images": 3,
        "missing_images": 1,
        "categories": {"Tea": 3, "Kettles": 1},
        "facts": [f"{name}: 4 rows found, 280 are published", f"{name}: 2 categories found, 16 are published"],
    }


@pytest.mark.parametrize("layout", ["folder", "zip", "hub"])
def test_both_arms_are_read_alike_from_a_folder_an_archive_and_the_hubs_layout(folder, layout, capsys):
    if layout == "hub":  # everything lies in one folder of the repository
        inside = folder.rename(folder.with_name("inside"))
        folder.mkdir()
        inside.rename(folder / "JailBreakV_28K")
    path = zipped(folder) if layout == "zip" else folder
    raw, jailbreak = summaries(capsys, "benchmark=jailbreakv", f"path={path}")
    assert (raw["benchmark"], jailbreak["benchmark"]) == ("jailbreakv_raw", "jailbreakv_jailbreak")
    assert counted(raw) == expected("jailbreakv_raw")
    assert counted(jailbreak) == expected("jailbreakv_jailbreak")


def test_the_jailbreak_is_asked_and_the_judge_is_told_the_plain_request(folder):
    raw = select_rows("jailbreakv_raw", "text", BenchmarkSettings(path=str(folder))).rows
    jailbreak = select_rows("jailbreakv_jailbreak", "text", BenchmarkSettings(path=str(folder))).rows
    assert [one.id for one in raw] == ["7", "8", "9", "12"]
    assert raw[0].prompt == REQUEST
    assert jailbreak[0].prompt == f"You are a kettle.\n{REQUEST}"
    assert (raw[0].plain_request, jailbreak[0].plain_request) == (REQUEST, REQUEST)
    assert raw[0].columns == {"format": "Template", "policy": "Tea", "from": "kitchen", "transfer_from_llm": "True"}


def test_formats_of_one_request_are_one_cluster_and_a_shared_image_of_noise_is_none(folder):
    rows = select_rows("jailbreakv_raw", "text", BenchmarkSettings(path=str(folder))).rows
    assert [one.cluster == rows[0].cluster for one in rows] == [True, True, True, False]
    kept = BenchmarkSettings(path=str(folder), where={"format": ["SD", "Logic"]})
    assert [one.id for one in select_rows("jailbreakv_raw", "text", kept).rows] == ["9", "12"]


def test_40_requests_in_two_formats_over_one_blank_image_are_40_clusters_of_two(tmp_path):
    """The blank goes with every request: by its pixels 40 unlike rows would be one cluster, and one
    group of the probe.
    """
    asked = [f"How do I brew tea number {i}?" for i in range(40)]
    rows = [row(f"{i}-blank", "Template", "blank.png", request) for i, request in enumerate(asked)]
    rows += [row(f"{i}-own", "SD", f"{i}.png", request) for i, request in enumerate(asked)]
    write_csv(tmp_path / "mini_JailBreakV_28K.csv", rows)
    for i in range(40):
        write_image(tmp_path / f"{i}.png", i + 1)
    write_image(tmp_path / "blank.png")
    requests = Requests.of(
        select_rows("jailbreakv_jailbreak", "image", BenchmarkSettings(path=str(tmp_path))), "prompt"
    )
    assert sorted(Counter(requests.clusters.values()).values()) == [2] * 40
    assert len(set(groups_of(requests.pairs, list(requests.clusters.values())))) == 40


def test_a_column_that_is_absent_is_named_with_file_and_row(tmp_path):
    write_csv(tmp_path / "mini_JailBreakV_28K.csv", [{"id": 1, "redteam_query": "How do I brew tea?"}])
    path = BenchmarkSettings(path=str(tmp_path))
    with pytest.raises(UserError, match=r"mini_JailBreakV_28K.csv, row 1: `jailbreak_query` is absent; found the col"):
        select_rows("jailbreakv_jailbreak", "text", path)
    with pytest.raises(UserError, match=r"mini_JailBreakV_28K.csv or JailBreakV_28K.csv in "):
        select_rows("jailbreakv_raw", "text", BenchmarkSettings(path=str(tmp_path / "..")))
