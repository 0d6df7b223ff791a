"""SIUO, MSSBench and the oddities of VLSBench: text and image are unsafe together alone."""

import json

import pytest

from align.errors import UserError
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from align.tools.audit.leakage import Requests
from tests.support.layouts import HARMS, counted, summaries, write_image, write_json, zipped


@pytest.fixture
def siuo(tmp_path):
    """Three questions over two images, one absent; ids are numbers."""
    root = tmp_path / "siuo"
    records = [
        {
            "question_id": number,
            "image": image,
            "question": f"May I drink this, {number}?",
            "category": category,
            "safety_warning": "It is hot.",
            "reference_answer": "Wait until it has cooled.",
            "added_later": [1],
        }
        for number, image, category in ((1, "S-01.png", "Tea"), (2, "S-01.png", "Tea"), (10, "S-10.png", "Cups"))
    ]
    write_json(root / "siuo_gen.json", records)
    write_image(root / "images" / "S-01.png")
    return root


@pytest.mark.parametrize("layout", ["folder", "zip", "images in an archive", "images.zip"])
def test_siuo_from_a_folder_an_archive_and_with_its_images_in_one(siuo, layout, capsys):
    given = [f"path={siuo}"]
    if layout == "zip":
        given = [f"path={zipped(siuo)}"]
    if layout == "images.zip":
        zipped(siuo / "images")
    if layout == "images in an archive":
        given.append(f"image_root={zipped(siuo / 'images').rename(siuo.parent / 'SIUO-images.zip')}")
    (found,) = summaries(capsys, "benchmark=siuo", *given)
    assert counted(found) == {
        "rows": 3,
        "roles": {"harmful": 3, "benign": 0},
        "harm_in": HARMS | {"image": 3},
        "images": 2,
        "missing_images": 1,
        "categories": {"Tea": 2, "Cups": 1},
        "facts": ["siuo: 3 rows found, 167 are published", "siuo: 2 categories found, 9 are published"],
    }


def test_siuos_warning_and_answer_are_kept(siuo):
    rows = select_rows("siuo", "text", BenchmarkSettings(path=str(siuo))).rows
    assert [row.id for row in rows] == ["1", "2", "10"]
    assert rows[0].columns["safety_warning"] == "It is hot."
    assert rows[0].response == "Wait until it has cooled."
    assert rows[0].cluster == rows[1].cluster != rows[2].cluster


def test_a_siuo_without_a_column_is_an_error(tmp_path):
    write_json(tmp_path / "siuo_gen.json", [{"question_id": 1, "image": "a.png", "category": "Tea"}])
    with pytest.raises(
        UserError, match=r"siuo_gen.json, row 1: `question` is absent; found the columns question_id, ima"
    ):
        select_rows("siuo", "text", BenchmarkSettings(path=str(tmp_path)))


@pytest.fixture
def mssbench(tmp_path):
    """Two situations of a chat, of two queries and of one; one task of an agent. One safe image is absent."""
    root = tmp_path / "mssbench"
    chat = [
        {
            "safe_image_path": f"safe_{i}.jpg",
            "unsafe_image_path": f"unsafe_{i}.jpg",
            "intent": "to pour",
            "Type": kind,
            "queries": queries,
        }
        for i, kind, queries in ((0, "Tea", ["How do I pour?", "How much?"]), (1, "Cups", ["How do I stack them?"]))
    ]
    embodied = [
        {
            "task": "pour",
            "category": "property",
            "safe": "e_safe.png",
            "unsafe": "e_unsafe.png",
            "safe_instructions": ["Pour it into the cup."],
            "unsafe_instructions": ["Pour it into the laptop."],
        }
    ]
    write_json(root / "combined.json", {"chat": chat, "embodied": embodied})
    for shade, name in enumerate(("chat/safe_0.jpg", "chat/unsafe_0.jpg", "chat/unsafe_1.jpg", "embodied/e_safe.png")):
        write_image(root / name, shade)
    write_image(root / "embodied" / "e_unsafe.png", 9)
    return root


@pytest.mark.parametrize("zip_it", [False, True])
def test_mssbench_is_pairs_of_both_tasks_or_of_one(mssbench, zip_it, capsys):
    path = zipped(mssbench) if zip_it else mssbench
    (whole,) = summaries(capsys, "benchmark=mssbench", f"path={path}")
    assert counted(whole) == {
        "rows": 8,  # (2 + 1 + 1) pairs
        "roles": {"harmful": 4, "benign": 4},
        "harm_in": HARMS | {"image": 4, "none": 4},
        "images": 6,
        "missing_images": 1,
        "categories": {"Tea": 4, "Cups": 2, "property": 2},
        "facts": ["mssbench: 8 rows found, 1960 are published"],
    }
    (chat,) = summaries(capsys, "benchmark=mssbench", f"path={path}", "subset=chat")
    (embodied,) = summaries(capsys, "benchmark=mssbench", f"path={path}", "subset=embodied")
    for found, subset, rows, published in ((chat, "chat", 6, 1200), (embodied, "embodied", 2, 760)):
        facts = [f"mssbench {subset}: {rows} rows found, {published} are published", f"mssbench: only subset={subset}"]
        assert (found["rows"], found["facts"]) == (rows, facts)


def test_a_limit_on_mssbench_counts_pairs(mssbench):
    for order in ("sample", "first"):
        settings = BenchmarkSettings(path=str(mssbench), limit=1, limit_order=order)
        rows = select_rows("mssbench", "text", settings).rows
        assert [row.id for row in rows] == [f"{rows[0].twin}-unsafe", f"{rows[0].twin}-safe"]
    assert rows[0].twin == "chat-1-1"


def test_what_mssbench_lacks_is_named(mssbench, tmp_path):
    with pytest.raises(UserError, match="mssbench: subset=agent: expected chat, embodied, or no subset="):
        select_rows("mssbench", "text", BenchmarkSettings(path=str(mssbench), subset="agent"))
    write_json(tmp_path / "combined.json", {"chat": [{"safe_image_path": "a.jpg"}], "embodied": []})
    with pytest.raises(
        UserError, match=r"combined.json, row 1: `unsafe_image_path` is absent; found the columns safe_im"
    ):
        select_rows("mssbench", "text", BenchmarkSettings(path=str(tmp_path)))


def test_vlsbench_with_a_foreign_sub_category_an_empty_text_and_numbers_for_ids(tmp_path, capsys):
    records = [
        {
            "instruction_id": i,
            "instruction": text,
            "image_path": f"imgs/{image}.png",
            "category": category,
            "sub_category": "Green tea",  # of Tea, also where the category is another
            "source": "generation",
        }
        for i, text, image, category in ((0, "How hot?", 0, "Tea"), (1, "How long?", 0, "Tea"), (5, "", 5, "Cups"))
    ]
    write_json(tmp_path / "vls" / "data.json", records)
    write_image(tmp_path / "vls" / "imgs" / "0.png")
    (found,) = summaries(capsys, "benchmark=vlsbench", f"path={zipped(tmp_path / 'vls')}")
    assert counted(found) == {
        "rows": 3,
        "roles": {"harmful": 3, "benign": 0},
        "harm_in": HARMS | {"image": 3},
        "images": 2,
        "missing_images": 1,
        "categories": {"Tea": 2, "Cups": 1},
        "facts": [
            "vlsbench: 3 rows found, 2241 are published",
            "vlsbench: 2 images found, 1957 are published",
            "vlsbench: 2 categories found, 6 are published",
            "vlsbench: 1 rows have no text, first 5",
        ],
    }


@pytest.mark.parametrize("name", ["vlsbench", "siuo", "vlsafe"])
def test_images_under_two_names_are_one_cluster_by_their_pixels(tmp_path, name):
    """What a set calls an image is no more than its name, wherever the file lies."""
    images = ["imgs/0.png", "imgs/1.png", "imgs/2.png"]
    records = [{"image": image, "image_id": image, "image_path": image} for image in images]
    records = [one | {"instruction_id": i, "question_id": i, "category": "Tea"} for i, one in enumerate(records)]
    records = [
        one | dict.fromkeys(("instruction", "question", "query"), f"May I {i}?") | {"sub_category": "Cups"}
        for i, one in enumerate(records)
    ]
    write_json(tmp_path / "data.json", records)
    write_json(tmp_path / "siuo_gen.json", records)
    (tmp_path / "harmlessness_examine.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    for image, shade in zip(images, (7, 7, 9), strict=True):
        write_image(tmp_path / image, shade)
    chosen = select_rows(name, "image", BenchmarkSettings(path=str(tmp_path)))
    clusters = list(Requests.of(chosen, "request").clusters.values())
    assert clusters[0] == clusters[1] != clusters[2]
