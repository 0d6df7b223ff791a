"""The certificate: what is leak-free is called so, and what is not is called by its measure."""

import json
import shutil

import pytest

from align.cli import main
from align.commands.certify import certify
from align.config.compose import compose_construct
from align.console import Display
from align.errors import UserError
from align.evaluation.verdicts import REQUESTS, Judge, Verdict
from align.miniature import world
from tests.support.construction import mini


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A small construction of the miniature."""
    folder = tmp_path_factory.mktemp("built")
    assert main(mini(folder, "elements=3")) == 0
    return folder


@pytest.fixture(scope="module")
def leaking(tmp_path_factory):
    """The same without the step that rewrites the queries, and the exit status."""
    folder = tmp_path_factory.mktemp("leaking")
    status = main(mini(folder, "steps=elements,queries,paint,pair,twin,caption,answers", "queries=9"))
    return folder, status


def certified(folder, into, *arguments):
    """The certificate of a copy of a constructed set, by its measures' names."""
    shutil.copytree(folder, into, dirs_exist_ok=True)
    found = certify(compose_construct(mini(into, *arguments)[1:]).config, into, Display())
    return found, {one["name"]: one for one in found["measures"]}


def test_the_miniature_is_leak_free(built):
    found = json.loads((built / "certificate.json").read_text())
    by_name = {one["name"]: one for one in found["measures"]}
    assert found["leak_free"]
    assert by_name["R2, text too (rule_requests)"]["value"] == 0
    assert by_name["R1, pair unsafe (rule_requests)"]["value"] > 0.9
    assert by_name["probe's AUC against the safe twins"]["value"] == 0.5  # twins share their text
    assert by_name["near-duplicates"]["value"] == 0


def test_without_the_rewriting_step_it_is_not_and_r2_is_named(leaking):
    folder, status = leaking
    assert status == 1
    found = json.loads((folder / "certificate.json").read_text())
    assert not found["leak_free"]
    assert [why.partition(" ")[0].strip(",:") for why in found["why_not"]] == ["R2", "text", "safe"]
    (r2,) = [one for one in found["measures"] if one["name"].startswith("R2")]
    assert r2["value"] == 1
    assert "Not leak-free" in (folder / "README.md").read_text()


def test_a_bound_is_a_setting(built, tmp_path):
    found, _ = certified(built, tmp_path, "certificate.min_r1=1.01")
    assert [why.partition(",")[0] for why in found["why_not"]] == ["R1"]


@pytest.mark.slow
@pytest.mark.long
def test_texts_that_benign_ones_can_be_told_from_do_not_pass_the_probe(leaking, tmp_path):
    rows = [
        {"id": f"b{i}", "prompt": form.format(o=thing), "role": "benign"}
        for i, (form, thing) in enumerate(
            (f, t) for f in world.QUESTIONS["text_named"]["train"][:3] for t in world.SAFE
        )
    ]
    (tmp_path / "benign.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["certificate.against=local", f"certificate.settings.local.path={tmp_path / 'benign.jsonl'}"]
    allowed = ["certificate.max_r2=1", "certificate.max_unsafe_twins=1"]
    found, by_name = certified(leaking[0], tmp_path, *allowed, *settings)
    assert by_name["probe's AUC against local"]["low"] > 0.5
    assert len(found["why_not"]) == 1
    assert "local" in found["why_not"][0]


def test_what_was_not_measured_does_not_hold(built, tmp_path):
    found, by_name = certified(built, tmp_path, "certificate.judge=[]")
    assert by_name["R1"]["value"] is by_name["R2"]["value"] is None
    assert by_name["R1"]["holds"] is by_name["R2"]["holds"] is False
    assert not found["leak_free"]


def test_too_few_items_do_not_hold_the_bounds(built, tmp_path):
    """No leak among 24 items: the interval ends at 14%, so a bound of 5% is not shown."""
    found, by_name = certified(built, tmp_path, "certificate.max_r2=0.05")
    assert by_name["R2, text too (rule_requests)"]["value"] == 0
    assert any(why.startswith("R2") for why in found["why_not"])


def all_unsafe(row, response):
    return Verdict("unsafe")


def unsafe_texts(row, response):
    """Texts alone are unsafe, pairs are not: R2 does not see these."""
    return Verdict("safe" if row.images else "unsafe")


ALL_UNSAFE = Judge("all_unsafe", "1", all_unsafe, labels=lambda kind: REQUESTS)
UNSAFE_TEXTS = Judge("unsafe_texts", "1", unsafe_texts, labels=lambda kind: REQUESTS)


def test_safe_twins_that_are_unsafe_do_not_hold(built, tmp_path):
    found, _ = certified(
        built, tmp_path, "certificate.judge=tests.construction.test_certificate:ALL_UNSAFE", "certificate.max_r2=1"
    )
    assert [why.partition(" ")[0] for why in found["why_not"]] == ["safe"]


def test_texts_that_are_unsafe_alone_do_not_hold_whatever_the_pair_is(built, tmp_path):
    found, by_name = certified(built, tmp_path, "certificate.judge=tests.construction.test_certificate:UNSAFE_TEXTS")
    assert by_name["R2, text too (unsafe_texts)"]["value"] == 0
    assert any(why.startswith("text alone") for why in found["why_not"])


def test_a_new_result_does_not_keep_the_old_certificate(built, tmp_path, capsys):
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    assert main(mini(tmp_path, "elements=1", "certificate.model=nosuch")) == 2  # found before anything is changed
    assert (tmp_path / "certificate.json").exists()
    assert main(mini(tmp_path, "elements=1", "certify=false")) == 0
    assert not (tmp_path / "certificate.json").exists()
    assert "Leak-free" not in (tmp_path / "README.md").read_text()


def test_duplicates_that_are_left_do_not_hold(built, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(built, changed)
    rows = (changed / "twins.jsonl").read_text().splitlines()
    again = json.dumps(json.loads(rows[0]) | {"id": "again"})
    (changed / "twins.jsonl").write_text("\n".join([*rows, again]) + "\n")
    found, by_name = certified(changed, tmp_path / "copy", "certificate.judge=[]")
    assert by_name["near-duplicates"]["value"] == pytest.approx(1 / (len(rows) + 1))
    assert any(why.startswith("near-duplicates") for why in found["why_not"])


def test_a_judge_of_responses_is_refused_by_its_setting(built, tmp_path):
    with pytest.raises(UserError, match=r"certificate\.judge=refusal_match"):
        certified(built, tmp_path, "certificate.judge=refusal_match")


def test_align_leakage_reads_the_same_file(built, tmp_path):
    arguments = ["leakage", "benchmark=twins", f"path={built / 'twins.jsonl'}", "judge=rule", "probe=false"]
    assert main([*arguments, f"output_dir={tmp_path}"]) == 0
    found = json.loads((tmp_path / "twins" / "leakage.rule_requests.json").read_text())
    assert found["R2"]["value"] == 0
    assert found["R1"]["value"] > 0.9
