"""Leakage: shares worked out by hand, failures that never count, and the miniature as it was built."""

import json

import pytest
from PIL import Image

from align.cli import main
from align.evaluation.verdicts import Verdict
from align.rows import Row
from align.tools.audit.leakage import Judged, shares
from tests.support.judge_server import images, judge_server, said
from tests.support.leaking_items import asking, found, values, word, write

pytestmark = pytest.mark.usefixtures("own_folder", "no_waits")


def test_shares_worked_out_by_hand(tmp_path, capsys):
    """Of ten items seven pairs are unsafe; of these the text alone is in four, and so is one text
    whose pair is safe.
    """
    items = write(tmp_path / "set")
    with judge_server(reply=word) as server:
        assert main(["leakage", "benchmark=local", items, *asking(server)]) == 0
        with_image = [body for body in server.bodies if images(body)]
        assert (len(server.bodies), len(with_image)) == (20, 10)
        assert "[request " in said(server.bodies[0])  # fenced
    result, flags = found(tmp_path)
    assert result["counts"] == {"both": 4, "pair_only": 3, "text_only": 1, "neither": 2, "invalid": 0}
    assert values(result) == [0.7, 0.4, 0.3, 0.5]
    assert (result["gap"]["low"], result["gap"]["high"]) == pytest.approx((0.1078, 0.6032), abs=1e-4)  # Wilson, 3 of 10
    assert (result["n"], result["n_valid"], result["withheld"]) == (10, 10, False)
    assert (result["text"], result["kind"], result["role"], result["benign"]) == ("request", "vsil", "harmful", None)
    assert [one["leaks"] for one in flags] == [True] * 4 + [False] * 3 + [None] * 3
    assert flags[8] == {"id": "r8", "pair": "safe", "text": "unsafe", "leaks": None}
    shown = " ".join(capsys.readouterr().out.split())
    assert "70.0 │ 40.0 │ 30.0 │ 50.0 │ 10" in shown


@pytest.mark.parametrize(("n", "withheld"), [(40, False), (20, True)])
def test_what_the_judge_did_not_say_counts_for_nothing(tmp_path, capsys, n, withheld):
    """Two items without a verdict, one on its pair and one on its text: of 40 5%, of 20 more, but
    of the texts alone 5%.
    """
    items = write(tmp_path / "set", n)
    with judge_server(reply=word, faults={3: ["prose", None, "prose"], 5: [None, "refusal"]}) as server:
        assert main(["leakage", "benchmark=local", items, *asking(server)]) == withheld
        assert main(["leakage", "benchmark=local", items, *asking(server)]) == withheld
        assert len(server.bodies) == 2 * n + 1  # the second time only what was garbled
    result, flags = found(tmp_path)
    assert result["invalid_reasons"] == {"pair": {"unparsable": 1}, "text": {"declined": 1}}
    assert (result["n"], result["n_valid"], result["counts"]["invalid"]) == (n, n - 2, 2)
    each = n // 10
    assert result["counts"] == {
        "both": 4 * each - 1,
        "pair_only": 3 * each - 1,
        "text_only": each,
        "neither": 2 * each,
        "invalid": 2,
    }
    wanted = [round(hits / 38, 6) for hits in (28 - 2, 16 - 1, 12 - 1)]
    assert values(result)[:3] == ([None] * 3 if withheld else wanted)
    assert (values(result)[3], result["n_text"]) == (round(5 * each / (n - 1), 6), n - 1)
    assert (flags[3], flags[5]) == (
        {"id": "r3", "pair": "invalid", "text": "unsafe", "leaks": None},
        {"id": "r5", "pair": "unsafe", "text": "invalid", "leaks": None},
    )
    shown = capsys.readouterr().out
    assert ("withheld" in shown) == withheld
    assert f"{n - 2} of {n}" in shown
    assert f"n={n - 1}" in shown


def judged(n, per_image=1):
    """n requests in which only every other image's pair is unsafe, and no text."""
    return [
        Judged(
            Row(f"r{i}", "may i", role="harmful", harm_in="image"),
            f"image {i // per_image}",
            Verdict("unsafe" if i // per_image % 2 else "safe"),
            Verdict("safe"),
        )
        for i in range(n)
    ]


def test_texts_whose_pairs_the_judge_would_not_look_at_still_count_as_texts():
    """It declines the five worst of ten pairs, whose texts are unsafe too: of pairs nothing can be
    told, of texts that five are unsafe.
    """
    declined = Verdict("invalid", "declined")
    row = Row("r", "may i", role="harmful", harm_in="both")
    told = shares(
        [
            Judged(row, f"p{i}", declined if i < 5 else Verdict("safe"), Verdict("unsafe" if i < 5 else "safe"))
            for i in range(10)
        ]
    )
    assert (told["withheld"], told["R1"], told["n_valid"]) == (True, None, 5)
    assert (told["text_unsafe"]["value"], told["n_text"]) == (0.5, 10)
    texts = [Judged(row, f"p{i}", Verdict("safe"), declined if i < 2 else Verdict("safe")) for i in range(20)]
    assert (shares(texts)["text_unsafe"], shares(texts)["n_text"]) == (None, 18)


def test_requests_over_one_image_widen_the_interval():
    alone, together = shares(judged(200)), shares(judged(200, 5))
    assert alone["gap"]["value"] == together["gap"]["value"] == 0.5
    width = {name: of["gap"]["high"] - of["gap"]["low"] for name, of in (("alone", alone), ("together", together))}
    assert width["together"] > 1.8 * width["alone"]  # 40 images: the root of five times as wide


def test_clusters_are_of_decoded_pixels(tmp_path):
    """Ten rows over two images under ten names: the interval is Wilson's with as many items as images."""
    items = write(tmp_path / "set")
    for i in range(10):
        Image.new("RGB", (8, 8), (200 * (i % 2), 0, 0)).save(tmp_path / "set" / f"{i}.png")
    with judge_server(reply=lambda number, body: "unsafe") as server:
        assert main(["leakage", "benchmark=local", items, *asking(server)]) == 0
    result, _ = found(tmp_path)
    assert result["R1"]["low"] == pytest.approx(0.3424, abs=1e-4)  # Wilson, 2 of 2


def test_the_miniature_comes_out_as_it_was_built(tmp_path, capsys):
    """VSIL leaks wholly, VSIL-free and twins not at all; no false alarm; and no words tell twins apart."""
    sets = "mini_vsil,mini_vsil_free,mini_benign,mini_twin"
    assert main(["leakage", f"benchmark={sets}", "judge=rule"]) == 0
    of = {name: found(tmp_path, "rule_requests", name) for name in sets.split(",")}
    assert values(of["mini_vsil"][0]) == [1.0, 1.0, 0.0, 1.0]
    assert values(of["mini_vsil_free"][0]) == [1.0, 0.0, 1.0, 0.0]
    assert values(of["mini_benign"][0]) == [0.0, 0.0, 0.0, 0.0]
    assert values(of["mini_twin"][0]) == [1.0, 0.0, 1.0, 0.0]
    assert values(of["mini_twin"][0]["benign"]) == [0.0, 0.0, 0.0, 0.0]
    assert (of["mini_twin"][0]["n"], of["mini_twin"][0]["benign"]["n"]) == (100, 100)
    assert {one["leaks"] for one in of["mini_vsil"][1]} == {True}
    assert {one["leaks"] for one in of["mini_vsil_free"][1]} == {False}
    probe = json.loads((tmp_path / "runs" / "leakage" / "mini_twin" / "probe.json").read_text())
    assert probe["auc"]["value"] <= probe["auc"]["permuted"]["q95"]
    assert not (tmp_path / "runs" / "leakage" / "mini_vsil" / "probe.json").exists()
    assert "Probe: harmful or benign" in capsys.readouterr().out


def test_a_file_of_several_kinds_is_measured_by_role(tmp_path):
    """Its benign rows are no part of R1; a judge's alarms about them stand beside it."""
    items = write(
        tmp_path / "set",
        role=lambda i: "harmful" if i < 5 else "benign",
        harm_in=lambda i: ["both", "image"][i % 2] if i < 5 else None,
    )
    with judge_server(reply=word) as server:
        assert main(["leakage", "benchmark=local", items, *asking(server), "probe=false"]) == 0
    result, _ = found(tmp_path)
    assert (result["kind"], result["role"], values(result)) == ("mixed", "harmful", [1.0, 0.8, 0.2, 0.8])
    assert values(result["benign"]) == [0.4, 0.0, 0.4, 0.2]
