"""HoliSafe, VLGuard's test set and XSTest: one set, several benchmarks, since one rate cannot speak for all."""

import io

import pytest
from PIL import Image

from align.errors import UserError
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from tests.support.layouts import HARMS, counted, summaries, write_csv, write_image, write_json, zipped

LETTERS = ("SSS", "SSU", "USU", "SUU", "UUU", "SSU")
"""Of six rows; the last two share an image."""


def holisafe_rows(column="type"):
    return [
        {
            "id": i,
            "image": f"kitchen/tea/{min(i, 5)}.jpg",
            "query": f"Is this hot, {i}?",
            "category": "kitchen" if i < 4 else "garden",
            "subcategory": "tea",
            column: letters,
            "image_safety_label": 0,
        }
        for i, letters in enumerate(LETTERS, start=1)
    ]


def expected_holisafe(name, rows, harms, images, missing, categories):
    benign = name == "holisafe_benign"
    return {
        "rows": rows,
        "roles": {"harmful": 0 if benign else rows, "benign": rows if benign else 0},
        "harm_in": HARMS | harms,
        "images": images,
        "missing_images": missing,
        "categories": categories,
        "facts": [f"{name}: 6 rows found in the whole data set, 4031 are published"],
    }


def holisafe_parts(missing):
    return [
        expected_holisafe("holisafe_vsil_free", 3, {"image": 3}, 3, 0, {"kitchen": 2, "garden": 1}),
        expected_holisafe("holisafe_vsil", 2, {"text": 1, "both": 1}, 2, missing, {"garden": 2}),
        expected_holisafe("holisafe_benign", 1, {"none": 1}, 1, 0, {"kitchen": 1}),
    ]


@pytest.mark.parametrize("layout", ["folder", "zip", "other name of the letters"])
def test_holisafes_letters_make_three_benchmarks(tmp_path, layout, capsys):
    root = tmp_path / "holisafe"
    column = "safeness_combination" if layout.startswith("other") else "type"
    write_json(root / "holisafe_bench.json", holisafe_rows(column))
    for i in (1, 2, 3, 5):  # that of the fourth row is absent
        write_image(root / "images" / "kitchen" / "tea" / f"{i}.jpg", i)
    found = summaries(capsys, "benchmark=holisafe", f"path={zipped(root) if layout == 'zip' else root}")
    assert [one["benchmark"] for one in found] == ["holisafe_vsil_free", "holisafe_vsil", "holisafe_benign"]
    assert [counted(one) for one in found] == holisafe_parts(missing=1)


@pytest.mark.parametrize("place", [".", "data"])
def test_holisafe_with_its_images_in_the_cells_of_parquet(tmp_path, place, capsys):
    import pyarrow as pa
    import pyarrow.parquet

    rows = holisafe_rows()
    for i, row in enumerate(rows):
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4), (i, 0, 0)).save(buffer, "PNG")
        row["image"] = {"bytes": buffer.getvalue(), "path": f"{i}.png"}
    (tmp_path / place).mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / place / "test-00000-of-00001.parquet")
    found = summaries(capsys, "benchmark=holisafe", f"path={tmp_path}")
    assert [counted(one) for one in found] == holisafe_parts(missing=0)
    assert [one["unreadable_images"] for one in found] == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "USS"}, r"holisafe_bench.json, row 4: `type` is 'USS', expected one of SSS, SSU, USU, SUU, UUU"),
        ({"type": None}, r"holisafe_bench.json, row 4: `type` is empty"),
        ({"image": 7}, r"holisafe_bench.json, row 4: `image` is 7 .int., expected a path"),
    ],
)
@pytest.mark.parametrize("part", ["holisafe_vsil_free", "holisafe_vsil", "holisafe_benign"])
def test_a_row_that_fits_no_part_is_an_error_in_every_part(tmp_path, part, change, message):
    rows = holisafe_rows()
    rows[3] |= change
    write_json(tmp_path / "holisafe_bench.json", rows)
    with pytest.raises(UserError, match=message):
        select_rows(part, "text", BenchmarkSettings(path=str(tmp_path)))


def test_holisafe_without_letters_is_an_error(tmp_path):
    write_json(tmp_path / "holisafe_bench.json", holisafe_rows("combination"))
    with pytest.raises(UserError, match=r"row 1: `type` is absent; found the columns id, image, query, category, subc"):
        select_rows("holisafe_benign", "text", BenchmarkSettings(path=str(tmp_path)))


VLGUARD = [
    {
        "id": "a",
        "image": "bad/a.png",
        "safe": False,
        "instr-resp": [{"instruction": "What is this?", "response": "No."}],
        "harmful_category": "kettles",
        "harmful_subcategory": "dented",
    },
    {
        "id": "b",
        "image": "b.png",
        "safe": True,
        "instr-resp": [
            {"safe_instruction": "What is this?", "response": "A cup."},
            {"unsafe_instruction": "How do I break it?", "response": "No."},
        ],
    },
    {
        "id": "c",
        "image": "c.png",
        "safe": True,
        "instr-resp": [
            {"unsafe_instruction": "How do I break it?", "response": "No."},
            {"safe_instruction": "What is this?", "response": "A pot."},
        ],
    },
]


@pytest.mark.parametrize("images_zipped", [False, True])
def test_vlguards_test_set_is_three_benchmarks(tmp_path, images_zipped, capsys):
    write_json(tmp_path / "test.json", VLGUARD)
    write_image(tmp_path / "test" / "bad" / "a.png", 1)
    write_image(tmp_path / "test" / "b.png", 2)
    if images_zipped:
        zipped(tmp_path / "test")
    unsafes, unsafe_texts, safes = summaries(capsys, "benchmark=vlguard", f"path={tmp_path}")
    assert counted(unsafes) == {
        "rows": 1,
        "roles": {"harmful": 1, "benign": 0},
        "harm_in": HARMS | {"image": 1},
        "images": 1,
        "missing_images": 0,
        "categories": {"kettles": 1},
        "facts": ["vlguard_unsafes: 1 rows found, 442 are published"],
    }
    for found, name, roles, harm in (
        (unsafe_texts, "vlguard_safe_unsafes", {"harmful": 2, "benign": 0}, {"text": 2}),
        (safes, "vlguard_safe_safes", {"harmful": 0, "benign": 2}, {"none": 2}),
    ):
        assert counted(found) == {
            "rows": 2,
            "roles": roles,
            "harm_in": HARMS | harm,
            "images": 2,
            "missing_images": 1,
            "categories": {},
            "facts": [f"{name}: 2 rows found, 558 are published"],
        }


def test_a_row_of_vlguard_with_the_wrong_pairs_is_named(tmp_path):
    write_json(tmp_path / "test.json", [VLGUARD[0] | {"safe": True}])
    with pytest.raises(UserError, match=r"test.json, row 1: safe is True, .*`instr-resp` .*unsafes; expected"):
        select_rows("vlguard_unsafes", "text", BenchmarkSettings(path=str(tmp_path)))


def xstest(number, label, kind="homonyms", **more):
    return {
        "id": number,
        "prompt": f"How do I kill the kettle, {number}?",
        "type": kind,
        "label": label,
        "focus": "kill",
        "note": "",
    } | more


@pytest.mark.parametrize("zip_it", [False, True])
def test_xstest_is_two_benchmarks_of_text(tmp_path, zip_it, capsys):
    root = tmp_path / "xstest"
    write_csv(
        root / "xstest_prompts.csv", [xstest(1, "safe"), xstest(2, "safe"), xstest(26, "unsafe", "contrast_homonyms")]
    )
    safe, unsafe = summaries(capsys, "benchmark=xstest", f"path={zipped(root) if zip_it else root}")
    assert counted(safe) == {
        "rows": 2,
        "roles": {"harmful": 0, "benign": 2},
        "harm_in": HARMS | {"none": 2},
        "images": 0,
        "missing_images": 0,
        "categories": {"homonyms": 2},
        "facts": ["xstest_safe: 2 rows found, 250 are published"],
    }
    assert counted(unsafe) == {
        "rows": 1,
        "roles": {"harmful": 1, "benign": 0},
        "harm_in": HARMS | {"text": 1},
        "images": 0,
        "missing_images": 0,
        "categories": {"contrast_homonyms": 1},
        "facts": ["xstest_unsafe: 1 rows found, 200 are published"],
    }


def test_a_limit_counts_rows_of_the_part_and_not_of_the_set(tmp_path):
    write_csv(tmp_path / "xstest_prompts.csv", [xstest(1, "safe"), xstest(2, "safe"), xstest(26, "unsafe")])
    rows = select_rows("xstest_unsafe", "image", BenchmarkSettings(path=str(tmp_path), limit=1)).rows
    assert [row.id for row in rows] == ["26"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (xstest(1, "maybe"), "xstest_prompts.csv, row 1: `label` is 'maybe', expected safe or unsafe"),
        (xstest(1, "safe", prompt=""), "xstest_prompts.csv, row 1: `prompt` is empty"),
        ({"id": 1, "prompt": "Tea?"}, "xstest_prompts.csv, row 1: `label` is absent; found the columns id, prompt"),
    ],
)
def test_a_row_of_xstest_that_cannot_be_used_is_named(tmp_path, row, message):
    write_csv(tmp_path / "xstest_prompts.csv", [row])
    with pytest.raises(UserError, match=message):
        select_rows("xstest_safe", "text", BenchmarkSettings(path=str(tmp_path)))
