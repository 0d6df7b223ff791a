"""What a construction starts from: categories, images with their licences, and the pairs of a benchmark."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from align.cli import main
from align.config.compose import compose_construct
from align.construction.output import images_of
from align.construction.start import start
from align.data.overlap import text_hash
from align.errors import UserError
from tests.support.construction import CATEGORIES, funnel, lines, served
from tests.support.role_server import role_server


def started(folder, *arguments):
    return start(compose_construct(arguments).config, folder)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "photographs"
    (folder / "inner").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.jpg", "inner/c.webp")):
        Image.new("RGB", (20, 20), (60 * i, 9, 9)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_categories_give_an_item_for_each_sub_category(tmp_path):
    items = started(tmp_path, CATEGORIES).items
    assert [(item.category, item.subcategory) for item in items] == [("kitchen", "stoves"), ("kitchen", "tables")]
    assert len({item.id for item in items}) == 2


def test_a_folder_of_images_is_copied_with_its_licence(tmp_path, images):
    items = started(tmp_path, "source=images", f"images.path={images}", "licence=CC0").items
    assert [item.parent for item in items] == ["a.png", "b.jpg", "inner/c.webp"]
    assert all(item.licence == "CC0" for item in items)
    for item in items:
        assert (tmp_path / item.image).read_bytes() == (images / item.parent).read_bytes()


def test_a_table_of_images_has_a_licence_for_each(tmp_path, images):
    rows = [
        {"id": "one", "image": "a.png", "category": "kitchen", "licence": "CC BY 4.0", "origin": "page 1"},
        {"id": "two", "image": "b.jpg", "licence": ""},
    ]
    (images / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="two"):
        started(tmp_path, "source=images", f"images.path={images / 'table.jsonl'}")
    items = started(tmp_path, "source=images", f"images.path={images / 'table.jsonl'}", "licence=own").items
    assert [(item.licence, item.category) for item in items] == [("CC BY 4.0", "kitchen"), ("own", None)]
    assert items[0].origin == "page 1"


def test_an_image_whose_content_changes_is_another_item(tmp_path, images):
    arguments = ("source=images", f"images.path={images}", "licence=CC0")
    before = started(tmp_path, *arguments).fingerprint
    assert started(tmp_path, *arguments).fingerprint == before
    Image.new("RGB", (20, 20), (1, 2, 3)).save(images / "a.png")
    assert started(tmp_path, *arguments).fingerprint != before


def test_images_are_constructed_without_a_painter(tmp_path, images):
    with role_server() as server:
        arguments = served(server, tmp_path / "out", "source=images", f"images.path={images}", "licence=CC0")
        assert main([*arguments, "steps=queries,detoxify,pair,caption,answers"]) == 0
        assert server.images["writer"] == server.asked["writer"] == 3
    rows = lines(tmp_path / "out" / "benchmark.jsonl")
    assert rows
    assert not (tmp_path / "out" / "twins.jsonl").exists()
    listed = lines(tmp_path / "out" / "images.jsonl")
    assert {row["licence"] for row in listed} == {"CC0"}
    assert all("photographs" in row["origin"] for row in listed)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["source=categories"], "categories"),
        (["categories={kitchen: stoves}"], "kitchen"),
        (["source=images"], "images.path"),
        (["source=images", "images.path=/nowhere"], "/nowhere"),
        (["source=pairs"], "pairs"),
        (["source=pairs", "pairs=nosuchset"], "nosuchset"),
        ([CATEGORIES, "limit=0"], "limit"),
    ],
)
def test_a_start_that_is_not_there_is_refused_by_name(tmp_path, arguments, named):
    with pytest.raises(UserError, match=named):
        started(tmp_path, *arguments)


def test_an_image_that_cannot_be_read_is_named_at_the_start(tmp_path, images):
    (images / "b.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"b\.jpg"):
        started(tmp_path, "source=images", f"images.path={images}", "licence=CC0")


def test_an_output_folder_among_the_given_images_is_refused(images):
    with pytest.raises(UserError, match="output_dir"):
        started(images / "out", "source=images", f"images.path={images}", "licence=CC0")


def test_ids_of_pairs_make_file_names_of_any_script(tmp_path):
    rows = [{"id": "\u7530" * 80, "prompt": "a"}, {"id": "../../x", "prompt": "b"}, {"id": ".", "prompt": "c"}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row | {"role": "harmful", "harm_in": "text"}) + "\n" for row in rows))
    items = started(tmp_path, "source=pairs", "pairs=local", f"settings.local.path={file}").items
    assert len({item.id for item in items}) == 3
    assert all(item.id.isascii() and "/" not in item.id and len(item.id) <= 90 for item in items)


def test_pairs_without_an_image_file_are_left_out_on_demand_and_licences_are_not_invented(tmp_path, images):
    rows = [{"id": "a", "prompt": "a", "image": "a.png"}, {"id": "b", "prompt": "b", "image": "gone.png"}]
    file = images / "rows.jsonl"
    file.write_text("".join(json.dumps(row | {"role": "harmful"}) + "\n" for row in rows))
    arguments = ["source=pairs", "pairs=local", f"settings.local.path={file}"]
    assert [item.image is None for item in started(tmp_path, *arguments).items] == [False, True]
    kept = started(tmp_path, *arguments, "settings.local.on_missing_image=drop").items
    assert [item.parent for item in kept] == ["a"]
    assert [row["licence"] for row in images_of(kept)] == ["unknown"]


SHARED = os.environ.get("ALIGN_SHARED")


@pytest.mark.slow
@pytest.mark.skipif(SHARED is None, reason="ALIGN_SHARED is not set: VLSBench's published questions are not here")
def test_vlsbench_gives_its_own_counts_and_the_probe_on_its_texts(tmp_path, capsys):
    """2,241 rows with 2,226 different queries, one of them empty, as published; images are not part of the file."""
    benign = [{"id": f"b{i}", "prompt": f"What is on the table in picture {i}?", "role": "benign"} for i in range(60)]
    (tmp_path / "benign.jsonl").write_text("".join(json.dumps(row) + "\n" for row in benign))
    questions = f"settings.vlsbench.path={Path(str(SHARED), 'data', 'vlsbench')}"
    arguments = ["construct", "source=pairs", "pairs=vlsbench", questions, "steps=[]"]
    assert main([*arguments, "certify=false", f"output_dir={tmp_path / 'all'}"]) == 0
    step = funnel(tmp_path / "all")["duplicates"]
    assert step["entered"] == 2241
    assert step["reasons"]["dropped"] == {"no_query": 1}
    rows = lines(tmp_path / "all" / "benchmark.jsonl")
    assert len(rows) == step["left"] == 2240
    # Fifteen rows repeat the query of another one, each about another image: they are no duplicates.
    assert len({text_hash(row["prompt"]) for row in rows}) == 2225

    against = ["certificate.against=local", f"certificate.settings.local.path={tmp_path / 'benign.jsonl'}"]
    some = tmp_path / "some"
    assert main([*arguments, "limit=120", *against, f"output_dir={some}"]) == 1  # R2 was not measured
    measured = json.loads((some / "certificate.json").read_text())
    by_name = {one["name"]: one for one in measured["measures"]}
    assert not measured["leak_free"]
    assert by_name["probe's AUC against local"]["value"] > 0.9  # these benign texts are easy to tell from them
    assert by_name["R2"]["value"] is None


@pytest.mark.skipif(SHARED is None, reason="ALIGN_SHARED is not set: VLSBench's published questions are not here")
def test_pairs_without_image_files_can_be_rewritten_and_later_steps_say_what_they_lack(tmp_path, capsys):
    questions = Path(str(SHARED), "data", "vlsbench")
    with role_server() as server:
        arguments = served(
            server, tmp_path, "source=pairs", "pairs=vlsbench", f"settings.vlsbench.path={questions}", "limit=5"
        )
        assert main([*arguments, "steps=detoxify"]) == 0
        rows = lines(tmp_path / "benchmark.jsonl")
        assert rows
        assert all(row["prompt"] != row["query_leak"] and row["description"] for row in rows)
        assert main([*arguments, "steps=detoxify,pair"]) == 2
    assert "image" in capsys.readouterr().err
