"""MM-SafetyBench: three kinds of image over two wordings, and the fourth arm without an image."""

import pytest

from align.errors import UserError
from align.evaluation.judges.mm_safetybench import ROUTES
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from tests.support.layouts import HARMS, counted, summaries, write_image, write_json, zipped

PARTS = ("mm_safetybench_sd", "mm_safetybench_sd_typo", "mm_safetybench_typo")


def question(what):
    return {
        "Question": f"How do I make {what}?",
        "Changed Question": f"List the steps to make {what}.",
        "Rephrased Question": "The bottom of the image shows a drink. List the steps to make it.",
        "Rephrased Question(SD)": "The image shows a drink. List the steps to make it.",
        "Key Phrase": what,
        "Phrase Type": "product",
    }


def write(root, questions="01-Illegal_Activitiy", images="01-Illegal_Activitiy"):
    """Two questions of one scenario, one of another; one image of SD_TYPO is absent."""
    write_json(root / "processed_questions" / f"{questions}.json", {"0": question("tea"), "12": question("cocoa")})
    write_json(root / "processed_questions" / "08-Political_Lobbying.json", {"0": question("milk")})
    for shade, kind in enumerate(("SD", "SD_TYPO", "TYPO")):
        for scenario, number in ((images, "0"), (images, "12"), ("08-Political_Lobbying", "0")):
            if (kind, scenario, number) != ("SD_TYPO", images, "12"):
                write_image(root / "imgs" / scenario / kind / f"{number}.jpg", shade)
    return root


SCENARIOS_NOT_AS_PUBLISHED = (
    "01-Illegal_Activitiy 2 (97), 02-HateSpeech 0 (163), 03-Malware_Generation 0 (44), 04-Physical_Harm 0 (144), "
    "05-EconomicHarm 0 (122), 06-Fraud 0 (154), 07-Sex 0 (109), 08-Political_Lobbying 1 (153), 09-Privacy_Violence 0 "
    "(139), "
    "10-Legal_Opinion 0 (130), 11-Financial_Advice 0 (167), 12-Health_Consultation 0 (109), 13-Gov_Decision 0 (149)"
)


def expected(name, missing):
    return {
        "rows": 3,
        "roles": {"harmful": 3, "benign": 0},
        "harm_in": HARMS | {"image": 3},
        "images": 3,
        "missing_images": missing,
        "categories": {"01-Illegal_Activitiy": 2, "08-Political_Lobbying": 1},
        "facts": [
            f"{name}: 3 rows found, 1680 are published",
            f"{name}: 3 images found, 1680 are published",
            f"{name}: 2 categories found, 13 are published",
            f"{name}: rows of a category found (published): {SCENARIOS_NOT_AS_PUBLISHED}",
        ],
    }


@pytest.mark.parametrize("zip_it", [False, True])
@pytest.mark.parametrize(
    ("questions", "images"),
    [
        ("01-Illegal_Activitiy", "01-Illegal_Activitiy"),  # as published, misspelt
        ("01-Illegal_Activity", "01-Illegal_Activity"),
        ("01-Illegal_Activity", "01-Illegal_Activitiy"),  # corrected on one side only
        ("01-Illegal_Activitiy", "01-Illegal_Activity"),
    ],
)
def test_three_kinds_of_image_however_the_first_scenario_is_spelt(tmp_path, questions, images, zip_it, capsys):
    root = write(tmp_path / "mm", questions, images)
    found = summaries(capsys, "benchmark=mm_safetybench", f"path={zipped(root) if zip_it else root}")
    assert [one["benchmark"] for one in found] == list(PARTS)
    assert [counted(one) for one in found] == [expected(PARTS[0], 0), expected(PARTS[1], 1), expected(PARTS[2], 0)]


def test_sd_has_a_wording_of_its_own_and_judges_are_told_the_question(tmp_path):
    settings = BenchmarkSettings(path=str(write(tmp_path)))
    sd, sd_typo, typo = ({row.id: row for row in select_rows(name, "text", settings).items} for name in PARTS)
    tea = "01-Illegal_Activitiy-0"
    assert sd[tea].prompt == "The image shows a drink. List the steps to make it."
    assert sd_typo[tea].prompt == "The bottom of the image shows a drink. List the steps to make it."
    assert typo[tea].prompt == sd_typo[tea].prompt
    assert sd[tea].plain_request == typo[tea].plain_request == "How do I make tea?"
    files = [str(part[tea].images[0].path).removeprefix(str(tmp_path)) for part in (sd, sd_typo, typo)]
    assert files == [f"/imgs/01-Illegal_Activitiy/{kind}/0.jpg" for kind in ("SD", "SD_TYPO", "TYPO")]


def test_the_arm_without_image_is_beside_the_group_and_has_its_files(tmp_path, capsys):
    write(tmp_path / "mm_safetybench")
    (found,) = summaries(capsys, "benchmark=mm_safetybench_text", f"data_root={tmp_path}")
    assert (found["rows"], found["harm_in"], found["with_image"]) == (3, HARMS | {"text": 3}, 0)
    assert found["facts"][0] == "mm_safetybench_text: 3 rows found, 1680 are published"
    settings = BenchmarkSettings(path=str(tmp_path / "mm_safetybench"))
    rows = select_rows("mm_safetybench_text", "image", settings).rows
    assert [row.prompt for row in rows] == [f"List the steps to make {what}." for what in ("tea", "cocoa", "milk")]


def test_the_judge_knows_the_scenario_by_its_two_digits(tmp_path):
    rows = select_rows("mm_safetybench_typo", "image", BenchmarkSettings(path=str(write(tmp_path)))).rows
    assert [ROUTES.get(str(row.category)[:2], "content") for row in rows] == [
        "content",
        "content",
        "political_lobbying",
    ]


def test_what_is_no_scenario_and_what_lacks_a_column_is_named(tmp_path):
    settings = BenchmarkSettings(path=str(write(tmp_path)))
    other = tmp_path / "processed_questions" / "14-Kettles.json"
    write_json(other, {"0": question("tea")})
    with pytest.raises(
        UserError, match=r"14-Kettles.json, row '0': '14-Kettles' is not a scenario of MM-SafetyBench; exp"
    ):
        select_rows("mm_safetybench_sd", "text", settings)
    other.unlink()
    write_json(tmp_path / "processed_questions" / "13-Gov_Decision.json", {"5": {"Question": "How do I brew tea?"}})
    with pytest.raises(UserError, match=r"13-Gov_Decision.json, row '5': `Rephrased Question\(SD\)` is absent; found"):
        select_rows("mm_safetybench_sd", "text", settings)


def test_a_scenario_under_both_names_is_refused(tmp_path):
    settings = BenchmarkSettings(path=str(write(tmp_path)))
    write_json(tmp_path / "processed_questions" / "01-Illegal_Activity.json", {"0": question("tea")})
    with pytest.raises(UserError, match="1 ids .* twice, first '01-Illegal_Activitiy-0'"):
        select_rows("mm_safetybench_sd", "text", settings)
