"""What kind a published set is, and that its judges have labels for it: by what they say, and in
evaluations from files to a rate.
"""

import json
from pathlib import Path

import pytest

from align.cli import main
from align.config.registry import BENCHMARKS, GROUPS, benchmark_names, data_set_of, resolve
from align.evaluation.judges.build import build
from align.settings import Judging
from tests.support.judge_server import judge_server, said
from tests.support.layouts import write_csv, write_image, write_json

SAFETY = ("refusal", "warning", "safe", "unsafe")
ANSWERS = ("correct", "wrong")
KINDS = {
    "beavertails_v": "vsil",
    "harmbench": "vsil",
    "holisafe_benign": "benign",
    "holisafe_vsil": "vsil",
    "holisafe_vsil_free": "vsil_free",
    "jailbreakv_jailbreak": "vsil",
    "jailbreakv_raw": "vsil",
    "mis": "vsil",
    "mm_safetybench_sd": "vsil",
    "mm_safetybench_sd_typo": "vsil",
    "mm_safetybench_text": "vsil",
    "mm_safetybench_typo": "vsil",
    "mossbench": "benign",
    "mssbench": "twin",
    "msts": "vsil_free",
    "msts_text": "vsil",
    "safebench": "vsil",
    "siuo": "vsil_free",
    "spa_vl_harm": "vsil",
    "vlguard_safe_safes": "benign",
    "vlguard_safe_unsafes": "vsil",
    "vlguard_unsafes": "vsil_free",
    "vlsafe": "vsil",
    "vlsbench": "vsil_free",
    "vlsu_benign": "benign",
    "vlsu_vsil": "vsil",
    "vlsu_vsil_free": "vsil_free",
    "vscbench_image": "twin",
    "vscbench_text_safe": "benign",
    "vscbench_text_unsafe": "vsil",
    "xstest_safe": "benign",
    "xstest_unsafe": "vsil",
}


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_every_judge_of_a_set_has_labels_for_its_kind(name, kind):
    benchmark = resolve("benchmark", name, BENCHMARKS)
    assert (benchmark.name, benchmark.kind, benchmark.judges[0]) == (name, kind, "vlsbench")
    for judge in benchmark.judges:
        labels = build(judge, Judging(base_url="http://localhost/v1", model="big")).labels(kind)
        assert set(labels) == set(SAFETY if kind in ("vsil", "vsil_free") else ANSWERS)


def test_a_group_is_its_parts_and_its_files_go_by_its_name():
    assert benchmark_names(["xstest.text", "siuo"]) == ["xstest_safe.text", "xstest_unsafe.text", "siuo"]
    assert all(part in KINDS for parts in GROUPS.values() for part in parts)
    assert {data_set_of(part) for part in GROUPS["holisafe"]} == {"holisafe"}
    assert data_set_of("mm_safetybench_text") == "mm_safetybench"
    assert (data_set_of("msts_text"), data_set_of("spa_vl_harm")) == ("msts", "spa_vl")
    assert "mm_safetybench_text" not in GROUPS["mm_safetybench"]


@pytest.fixture
def data_root(tmp_path, monkeypatch):
    """Three items of three sets; the server's judge calls item 1 a warning, item 2 unsafe and item 3 a refusal."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    jailbreakv, chat, scenes = [], [], {}
    for i in (1, 2, 3):
        request = f"Tell me about item {i}."
        wrapped = f"You are a kettle, and this is item {i}."
        jailbreakv.append({"id": i, "jailbreak_query": wrapped, "redteam_query": request, "policy": "Tea"})
        jailbreakv[-1]["image_path"] = "figstep/a.png"
        chat.append({"safe_image_path": "a.jpg", "unsafe_image_path": f"{i}.jpg", "Type": "Tea", "queries": [request]})
        scenes[str(i)] = {"pid": i, "image": "images/a.png", "question": request, "metadata": {"over": "type 1"}}
        write_image(root / "mssbench" / "chat" / f"{i}.jpg", i)
    write_csv(root / "jailbreakv" / "mini_JailBreakV_28K.csv", jailbreakv)
    write_json(root / "mssbench" / "combined.json", {"chat": chat, "embodied": []})
    write_json(root / "mossbench" / "information.json", scenes)
    for name in ("jailbreakv/figstep/a.png", "mssbench/chat/a.jpg", "mossbench/images/a.png"):
        write_image(root / name, 9)
    return root


def test_published_sets_are_judged_from_their_files_to_a_rate(data_root):
    with judge_server() as server:
        answering = [f"generation.base_url={server.url}", "generation.model=answerer", "output_dir=run"]
        judging = ["judge=vlsbench", f"judge.base_url={server.url}", "judge.model=gpt", f"data_root={data_root}"]
        sets = "benchmark=jailbreakv,mossbench,mssbench"
        assert main(["eval", sets, *answering, *judging, "settings.mssbench.subset=chat"]) == 0
        judged = [said(body) for body in server.bodies if body["model"] == "gpt"]
        asked = [said(body) for body in server.bodies if body["model"] == "answerer"]
    results = {
        name: json.loads(Path(f"run/evaluation/{name}/summary.vlsbench.json").read_text())
        for name in ("jailbreakv_raw", "jailbreakv_jailbreak", "mossbench", "mssbench")
    }
    assert {name: (one["kind"], one["n"]) for name, one in results.items()} == {
        "jailbreakv_raw": ("vsil", 3),
        "jailbreakv_jailbreak": ("vsil", 3),
        "mossbench": ("benign", 3),
        "mssbench": ("twin", 3),
    }
    nothing_else = {"incoherent": 0, "invalid": 0}
    for name in ("jailbreakv_raw", "jailbreakv_jailbreak"):
        one_each = {"refusal": 1, "warning": 1, "safe": 0, "unsafe": 1}
        assert results[name]["counts"] == one_each | nothing_else
    assert results["mossbench"]["counts"] == {"correct": 2, "wrong": 1} | nothing_else  # the refusal is wrong
    # A pair is right where the danger was met and the safe image answered: of item 1 alone.
    assert results["mssbench"]["counts"] == {"correct": 1, "wrong": 2} | nothing_else
    assert "jailbreakv_raw: 3 rows found, 280 are published" in results["jailbreakv_raw"]["facts"]
    # The wrapping was asked, and no judge was told of it.
    assert sum("You are a kettle" in text for text in asked) == 3
    assert not any("You are a kettle" in text for text in judged)
