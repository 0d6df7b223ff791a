"""Review by people: the table and decisions go out and come back exactly; kappa against numbers worked by hand."""

import csv
import json

import pytest
from PIL import Image

from align.construction.item import Item
from align.construction.review.agreement import agreement, fleiss_kappa
from align.construction.review.decisions import Decision, import_decisions, read_decisions, review, stored_decisions
from align.construction.review.export import export, key_of
from align.errors import UserError

N = 6


@pytest.fixture
def items(tmp_path):
    for i in range(N):
        Image.new("RGB", (9, 9), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
    return [Item(f"i{i}", category="kitchen", query_free=f"How is this used, {i}?", image=f"{i}.png") for i in range(N)]


def filled(folder, file, decisions, **changed):
    """review.csv as a person fills it in, who is called as the file."""
    with (folder / "review" / "review.csv").open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    for row, decision in zip(rows, decisions, strict=True):
        row |= {"person": file, "decision": decision} | changed
    path = folder / f"{file}.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as table:  # as spreadsheets save it
        writer = csv.DictWriter(table, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_the_table_and_the_page_have_every_item(items, tmp_path):
    table, page = export(items, tmp_path)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [item.id for item in items]
    assert [row["key"] for row in rows] == [key_of(item) for item in items]
    assert page.read_text().count("data:image/jpeg;base64,") == N
    assert "http" not in page.read_text().replace("http-equiv", "")


def test_decisions_of_several_people_go_by_majority(items, tmp_path):
    export(items, tmp_path)
    files = [
        filled(tmp_path, "ada", ["keep", "drop", "keep", "drop", "keep", ""]),
        filled(tmp_path, "ben", ["keep", "drop", "drop", "keep", "", ""]),
        filled(tmp_path, "eve", ["keep", "drop", "drop", "", "", ""]),
    ]
    assert import_decisions(files, items, tmp_path) == []
    done, facts = review(items, stored_decisions(tmp_path))
    assert [item.id for item in done.left] == ["i0", "i4", "i5"]
    reasons = {one.id: one.reason for one in done.outcomes if one.reason}
    assert reasons == {"i1": "reviewers", "i2": "reviewers", "i3": "reviewers_tie"}
    assert (facts["people"], facts["reviewed"], facts["not_reviewed"], facts["dropped"]) == (3, 5, 1, 3)
    assert [one["item"] for one in facts["disagreements"]] == ["i2", "i3"]


def test_what_the_page_saves_is_read(items, tmp_path):
    saved = {
        "schema": 1,
        "person": "ada",
        "decisions": [{"id": "i1", "key": key_of(items[1]), "decision": "drop", "note": "it names the harm"}],
    }
    (tmp_path / "d.json").write_text(json.dumps(saved))
    assert read_decisions([str(tmp_path / "d.json")]) == [
        Decision("i1", key_of(items[1]), "ada", "drop", "it names the harm")
    ]


def test_decisions_about_changed_items_do_not_count(items, tmp_path):
    export(items, tmp_path)
    file = filled(tmp_path, "ada", ["drop"] * N)
    changed = [Item("i0", query_free="Another query?", image="0.png"), *items[1:4]]
    told = import_decisions([file], changed, tmp_path)
    assert len(told) == 2  # two items are gone, one has changed
    assert any("i4" in line for line in told)
    assert any("i0" in line for line in told)
    done, _ = review(changed, stored_decisions(tmp_path))
    assert [item.id for item in done.left] == ["i0"]


@pytest.mark.parametrize("change", [{"decision": "maybe"}, {"decision": "keep", "person": "ada"}])
def test_a_decision_that_is_none_and_a_second_one_are_refused_by_file_and_row(items, tmp_path, change):
    export(items, tmp_path)
    first = filled(tmp_path, "ada", ["drop"] * N)
    second = filled(tmp_path, "ben", ["drop"] * N, **change)
    with pytest.raises(UserError, match=r"ben\.csv, row 1"):
        read_decisions([first, second])


def test_an_import_adds_to_earlier_ones_and_says_what_it_replaces(items, tmp_path):
    export(items, tmp_path)
    assert import_decisions([filled(tmp_path, "ada", ["drop", "drop", "", "", "", ""])], items, tmp_path) == []
    assert import_decisions([filled(tmp_path, "ben", ["drop", "keep", "keep", "", "", ""])], items, tmp_path) == []
    assert review(items, stored_decisions(tmp_path))[1]["people"] == 2
    told = import_decisions([filled(tmp_path, "ada", ["keep", "drop", "", "", "", ""])], items, tmp_path)
    assert len(told) == 1
    assert "i0" in told[0]


def test_no_cell_is_a_formula_and_ids_come_back(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "0.png")
    item = Item("-1", query_free='=HYPERLINK("http://example.org")', element="@x", image="0.png")
    table, _ = export([item], tmp_path)
    with table.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert not any(value[:1] in ("=", "-", "@", "+") for value in row.values())
    assert not row["key"][0].isdigit()
    assert [one.item for one in read_decisions([filled(tmp_path, "ada", ["drop"])])] == ["-1"]


def test_two_files_of_one_name_need_the_names_of_their_people(items, tmp_path):
    export(items, tmp_path)
    files = []
    for folder in ("r1", "r2"):
        (tmp_path / folder / "review").mkdir(parents=True)
        (tmp_path / folder / "review" / "review.csv").write_bytes((tmp_path / "review" / "review.csv").read_bytes())
        files.append(filled(tmp_path / folder, "review", ["drop"] * N, person=""))
    with pytest.raises(UserError, match="person"):
        read_decisions(files)


def test_a_file_without_the_columns_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("id,decision\ni0,keep\n")
    with pytest.raises(UserError, match="key"):
        read_decisions([str(tmp_path / "x.csv")])


def test_nothing_about_these_items_is_an_error(items, tmp_path):
    (tmp_path / "x.csv").write_text("id,key,decision\nz,0,keep\n")
    with pytest.raises(UserError, match=r"x\.csv"):
        import_decisions([str(tmp_path / "x.csv")], items, tmp_path)


def labels(*people):
    return {f"i{i}": {f"p{p}": label for p, label in enumerate(of)} for i, of in enumerate(zip(*people, strict=True))}


def test_two_people_get_cohens_kappa():
    # 50 items: both keep 20, both drop 15, only the second keeps 10, only the first keeps 5.
    # Agreement 35/50 = .7; by chance .5 * .6 + .5 * .4 = .5; kappa = (.7 - .5) / .5 = .4.
    first = ["keep"] * 20 + ["drop"] * 15 + ["drop"] * 10 + ["keep"] * 5
    second = ["keep"] * 20 + ["drop"] * 15 + ["keep"] * 10 + ["drop"] * 5
    found = agreement(labels(first, second), ("keep", "drop"))
    assert found["kappa"]["name"] == "cohen"
    assert found["kappa"]["value"] == pytest.approx(0.4)
    assert found["kappa"]["low"] < 0.4 < found["kappa"]["high"]
    assert found["all_agree"]["value"] == pytest.approx(0.7)


def test_fleiss_kappa_of_the_worked_example():
    """Ten items, fourteen raters, five categories: the example of Wikipedia's page on Fleiss' kappa, 0.210."""
    counts = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)


def test_three_people_get_fleiss_kappa_also_with_gaps():
    # Three items of three people and one of two. Pairs that agree: 1, 1/3, 1, 0 -> 7/12. Labels: keep 6, drop 5 of 11.
    given = {
        "a": {"p": "keep", "q": "keep", "r": "keep"},
        "b": {"p": "keep", "q": "keep", "r": "drop"},
        "c": {"p": "drop", "q": "drop", "r": "drop"},
        "d": {"p": "keep", "q": "drop"},
        "e": {"p": "keep"},
    }
    chance = (6 / 11) ** 2 + (5 / 11) ** 2
    found = agreement(given, ("keep", "drop"))
    assert found["items"] == 4
    assert found["kappa"]["value"] == pytest.approx((7 / 12 - chance) / (1 - chance))


@pytest.mark.parametrize("people", [2, 3])
def test_perfect_agreement_keeps_an_interval_with_a_width(people):
    found = agreement(labels(*[["keep"] * 12 + ["drop"] * 12] * people), ("keep", "drop"))
    assert found["kappa"]["value"] == 1
    assert 0.5 < found["kappa"]["low"] < 1
    assert found["kappa"]["high"] == 1


def test_one_label_on_every_item_has_no_kappa_and_one_person_no_agreement():
    assert agreement(labels(["keep"] * 5, ["keep"] * 5), ("keep", "drop"))["kappa"]["value"] is None
    assert agreement(labels(["keep"] * 5), ("keep", "drop")) is None
