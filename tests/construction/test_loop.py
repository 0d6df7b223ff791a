"""The loop in the miniature: construct, certify, train the controlled track on what was built,
evaluate on the miniature's own sets.
"""

import json

import pytest
from scipy.stats import binomtest

from align.cli import main
from align.evaluation.metrics import wilson
from align.miniature import construction
from tests.support.construction import funnel

PLANTED = {
    "detoxify": ("leaks", "candidates", construction.LEAKING),
    "paint": ("rejected", "images", construction.WRONG_IMAGE),
    "twin": ("rejected", "images", construction.UNEDITED),
}
"""{step: what was rejected, of what, the rate at which the step's role errs}"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_built_trains_a_model_that_looks(tmp_path, seed):
    built = tmp_path / "built"
    assert main(["construct", "recipe=construct/miniature", f"seed={seed}", f"output_dir={built}"]) == 0
    steps = funnel(built)
    for step, (rejected, of, rate) in PLANTED.items():
        counts = steps[step]["counts"]
        low, high = wilson(counts[rejected], counts[of])
        print(
            f"seed {seed}: {step} {counts[rejected]} of {counts[of]} rejected ({low:.3f} to {high:.3f}), planted {rate}"
        )
        # Nine rates are compared, over seeds and steps: together they err in 5% of all cases (Bonferroni).
        assert binomtest(counts[rejected], counts[of], rate).pvalue > 0.05 / 9
    certificate = json.loads((built / "certificate.json").read_text())
    by_name = {one["name"]: one for one in certificate["measures"]}
    assert certificate["leak_free"]
    assert by_name["R2, text too (rule_requests)"]["high"] < 0.05
    assert by_name["probe's AUC against the safe twins"]["value"] == 0.5

    arms = "recipe=controlled/image_free,controlled/image_leak"
    compared = tmp_path / "compared"
    assert (
        main(
            [
                "compare",
                "track=controlled",
                arms,
                f"suite={built / 'suite.yaml'}",
                f"seed={seed}",
                f"output_dir={compared}",
            ]
        )
        == 0
    )
    rates = {
        arm["name"]: {name: of["rate"] for name, of in arm["results"].items()}
        for arm in json.loads((compared / "comparison.json").read_text())["arms"]
    }
    print(f"seed {seed}: {rates}")
    assert rates["image_free"]["mini_vsil_free"] >= 0.90
    assert rates["image_free"]["mini_twin"] >= 0.85
    assert rates["image_leak"]["mini_vsil_free"] <= 0.15
