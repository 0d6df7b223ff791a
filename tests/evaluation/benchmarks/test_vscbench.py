"""VSCBench: two workbooks, of images that make a query safe or unsafe, and of texts with four images each."""

import pytest

from align.errors import UserError
from align.evaluation.benchmarks.vscbench import FIGSTEP
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from tests.support.layouts import HARMS, counted, summaries, write_image, write_xlsx, zipped


def query(number, category, **more):
    images = {f"{kind}_img_{i}": f"{kind}_{number}_{i}.png" for kind in ("safe", "unsafe") for i in range(3)}
    return {"Category": category, "Prompt": f"How do I open it, {number}?"} | images | more


def text(number, kind):
    images = {f"{name}_img": f"{name}_{number}.png" for name in ("search", "typography", "concat", "figstep")}
    return {
        "id": number,
        "type": kind,
        "prompt_origin": f"How do I kill the kettle, {number}?",
        "prompt_mm": "How do I kill this?",
        "prompt_figstep": "Ways to kill",
        "note": None,
    } | images


@pytest.fixture(params=[True, False], ids=["shared texts", "texts in cells"])
def root(tmp_path, request):
    """Two queries, 12 images of which one is absent; two safe texts and an unsafe one, images of the
    first alone.
    """
    root = tmp_path / "vscbench"
    queries = [query(0, "drugs"), query(1, "violence")]
    write_xlsx(root / "vscbench_image_centric.xlsx", queries, request.param)
    shown = [(row["Category"], name) for row in queries for name in row.values() if name.endswith(".png")]
    for shade, (category, name) in enumerate(shown):
        if name != "unsafe_1_2.png":
            write_image(root / "vscbench_image_centric_images" / category / name, shade)
    texts = [text(1, "homonyms"), text(2, "homonyms"), text(26, "contrast_homonyms")]
    write_xlsx(root / "vscbench_text_centric.xlsx", texts, request.param)
    for name in ("search", "typography", "concat", "figstep"):
        write_image(root / "vscbench_text_centric_images" / name / f"{name}_1.png", 20)
    return root


@pytest.mark.parametrize("zip_it", [False, True])
def test_its_repository_is_a_benchmark_of_pairs_and_two_of_texts(root, zip_it, capsys):
    pairs, unsafe, safe = summaries(capsys, "benchmark=vscbench", f"path={zipped(root) if zip_it else root}")
    assert counted(pairs) == {
        "rows": 12,
        "roles": {"harmful": 6, "benign": 6},
        "harm_in": HARMS | {"image": 6, "none": 6},
        "images": 12,
        "missing_images": 1,
        "categories": {"drugs": 6, "violence": 6},
        "facts": [
            "vscbench_image: 12 rows found, 1800 are published",
            "vscbench_image: 2 categories found, 6 are published",
        ],
    }
    assert counted(unsafe) == {
        "rows": 4,
        "roles": {"harmful": 4, "benign": 0},
        "harm_in": HARMS | {"image": 4},
        "images": 4,
        "missing_images": 4,
        "categories": {"contrast_homonyms": 4},
        "facts": ["vscbench_text_unsafe: 12 rows found in the whole data set, 1800 are published"],
    }
    assert counted(safe) == {
        "rows": 8,
        "roles": {"harmful": 0, "benign": 8},
        "harm_in": HARMS | {"none": 8},
        "images": 8,
        "missing_images": 4,
        "categories": {"homonyms": 8},
        "facts": ["vscbench_text_safe: 12 rows found in the whole data set, 1800 are published"],
    }


def test_pairs_share_the_query_and_its_cluster(root):
    settings = BenchmarkSettings(path=str(root), on_missing_image="drop")
    rows = select_rows("vscbench_image", "image", settings).rows
    assert [row.id for row in rows[:3]] == ["image-1-0-unsafe", "image-1-0-safe", "image-1-1-unsafe"]
    assert len(rows) == 10  # the pair without its unsafe image is left out whole
    assert {row.cluster for row in rows} == {"image-1", "image-2"}
    assert {(row.twin, row.prompt) for row in rows[:2]} == {("image-1-0", "How do I open it, 0?")}


def test_a_subset_is_one_kind_of_image_and_figsteps_prompt_is_fixed(root):
    every = select_rows("vscbench_text_safe", "text", BenchmarkSettings(path=str(root))).rows
    assert [row.prompt for row in every[:4]] == ["How do I kill this?"] * 3 + [FIGSTEP]
    assert {row.plain_request for row in every[:4]} == {"How do I kill the kettle, 1?"}
    settings = BenchmarkSettings(path=str(root), subset="figstep")
    assert [row.id for row in select_rows("vscbench_text_unsafe", "text", settings).rows] == ["text-3-figstep"]
    with pytest.raises(UserError, match="subset=photo: expected search, typography, concat, figstep"):
        select_rows("vscbench_text_safe", "text", BenchmarkSettings(path=str(root), subset="photo"))


@pytest.mark.parametrize(("column", "name"), [("Prompt", "Prompt"), ("unsafe_img_2", "unsafe_img_2")])
def test_an_empty_cell_is_named_with_its_row_in_the_sheet(tmp_path, column, name):
    write_xlsx(tmp_path / "vscbench_image_centric.xlsx", [query(0, "drugs"), query(1, "drugs", **{column: None})])
    with pytest.raises(UserError, match=rf"vscbench_image_centric.xlsx, row 3: `{name}` is empty"):
        select_rows("vscbench_image", "text", BenchmarkSettings(path=str(tmp_path)))
