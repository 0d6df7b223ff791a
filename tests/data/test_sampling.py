"""`rows=` and `limit=`: a seeded sample that divides as the whole set does, in the set's own order,
with twins kept together.
"""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.cli import main
from align.data.assembly import read_source
from align.data.sampling import stratified
from align.errors import UserError
from align.evaluation.selection import narrowing, select_rows, settings_of
from align.rows import Row
from align.settings import BenchmarkSettings, EvalConfig, LeakageConfig, Part
from tests.support.published import mssbench, pku_saferlhf, vlguard, write_jsonl


def row(i, role="benign", category=None, source="set", twin=None, columns=None):
    return Row(f"r{i}", f"p {i}", role=role, category=category, source=source, twin=twin, columns=columns or {})


KINDS = st.tuples(st.sampled_from(["harmful", "benign"]), st.sampled_from(["a", "b", None]), st.sampled_from("xy"))


@given(kinds=st.lists(KINDS, min_size=1, max_size=60), n=st.integers(1, 70), seed=st.integers(0, 9))
def test_a_sample_has_its_size_and_the_sets_own_order_and_shares(kinds, n, seed):
    rows = [row(i, *kind) for i, kind in enumerate(kinds)]
    drawn = stratified(rows, n, seed)
    assert len(drawn) == min(n, len(rows))
    assert [rows.index(one) for one in drawn] == sorted(rows.index(one) for one in drawn)
    assert stratified(rows, n, seed) == drawn
    share = len(drawn) / len(rows)
    whole, part = (Counter(one.role for one in of) for of in (rows, drawn))
    for role, count in whole.items():
        assert abs(part[role] - count * share) < 1
        of_role = [[one for one in of if one.role == role] for of in (rows, drawn)]
        whole_categories, part_categories = (Counter(one.category for one in of) for of in of_role)
        for category, in_category in whole_categories.items():
            assert abs(part_categories[category] - in_category * part[role] / count) < 1


@given(twins=st.lists(st.sampled_from([1, 2]), min_size=1, max_size=30), n=st.integers(2, 60), seed=st.integers(0, 3))
def test_the_halves_of_a_twin_are_drawn_together(twins, n, seed):
    rows = [
        row(f"{i}-{half}", ("harmful", "benign")[half], twin=f"t{i}" if size == 2 else None)
        for i, size in enumerate(twins)
        for half in range(size)
    ]
    drawn = stratified(rows, n, seed)
    assert min(n, len(rows)) - 1 <= len(drawn) <= n
    assert all(count == 2 for twin, count in Counter(one.twin for one in drawn).items() if twin)


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=20), n=st.integers(1, 60), seed=st.integers(0, 3))
def test_groups_of_any_size_are_drawn_whole_and_fewer_rows_come_by_less_than_a_group(sizes, n, seed):
    rows = [row(f"{i}-{j}", twin=f"t{i}") for i, size in enumerate(sizes) for j in range(size)]
    if max(sizes) > n and len(rows) > n:
        with pytest.raises(UserError, match=rf"^rows={n}: .*\bt{sizes.index(max(sizes))}\b.*\b{max(sizes)}\b"):
            stratified(rows, n, seed)
        return
    drawn = stratified(rows, n, seed)
    assert min(n, len(rows)) - max(sizes) < len(drawn) <= n
    assert all(count == sizes[int(twin[1:])] for twin, count in Counter(one.twin for one in drawn).items())
    left = [size for i, size in enumerate(sizes) if f"t{i}" not in {one.twin for one in drawn}]
    assert not left or min(left) > n - len(drawn)  # no further group has room


def twins_of_one_id(tmp_path, n):
    rows = [{"id": f"r{i}", "prompt": f"p {i}", "response": "x", "role": "benign", "twin": "t"} for i in range(n)]
    write_jsonl(tmp_path / "rows.jsonl", *rows)
    return str(tmp_path / "rows.jsonl")


def test_a_group_that_is_larger_than_what_a_part_asks_for_is_named(tmp_path):
    part = Part(path=twins_of_one_id(tmp_path, 10), rows=4)
    with pytest.raises(UserError, match=r"rows=4\b.*\bt\b.*\b10\b"):
        read_source(part)
    part.rows = 10
    assert len(read_source(part).rows) == 10


def test_a_group_that_is_larger_than_the_limit_is_named(tmp_path):
    settings = BenchmarkSettings(path=twins_of_one_id(tmp_path, 2), limit=1)
    with pytest.raises(UserError, match=r"local: limit=1\b.*\bt\b.*\b2\b.*limit_order=first"):
        select_rows("local", "text", settings)
    assert (
        len(select_rows("local", "text", BenchmarkSettings(path=settings.path, limit=1, limit_order="first")).rows) == 1
    )


def test_another_seed_draws_others_and_the_largest_remainders_get_the_rest():
    rows = [row(i, category="abc"[i % 3]) for i in range(9)]
    assert Counter(one.category for one in stratified(rows, 6, 0)) == {"a": 2, "b": 2, "c": 2}
    assert len({tuple(one.id for one in stratified(rows, 6, seed)) for seed in range(5)}) > 1
    rows = [row(i, category="a" if i < 7 else "b") for i in range(10)]  # 2.8 and 1.2 of 4
    assert Counter(one.category for one in stratified(rows, 4, 0)) == {"a": 3, "b": 1}


def test_a_column_named_source_divides_a_set_that_has_it():
    rows = [row(i, columns={"source": "drawn" if i < 90 else "found"}) for i in range(100)]
    drawn = stratified(rows, 10, 0)
    assert Counter(one.columns["source"] for one in drawn) == {"drawn": 9, "found": 1}


def test_arms_that_ask_the_same_items_draw_the_same_items():
    leak, free = ([row(f"{i}", role, category="ab"[i % 2]) for i in range(40)] for role in ("harmful", "benign"))
    assert [one.id for one in stratified(leak, 7, 3)] == [one.id for one in stratified(free, 7, 3)]


def test_the_real_vlsbench_is_drawn_from_every_category_and_source(shared):
    settings = BenchmarkSettings(path=str(shared / "data" / "vlsbench"), limit=200)
    whole = select_rows("vlsbench", "text", BenchmarkSettings(path=settings.path)).rows
    chosen = select_rows("vlsbench", "text", settings)
    assert len(chosen.rows) == 200
    assert chosen.facts[-1] == "vlsbench: only limit=200 (a stratified sample, seed 0)"
    for column in (lambda one: one.category, lambda one: one.columns["source"]):
        counts, drawn = Counter(map(column, whole)), Counter(map(column, chosen.rows))
        assert all(abs(drawn[kind] - count * 200 / len(whole)) < 4 for kind, count in counts.items())
    first = select_rows("vlsbench", "text", BenchmarkSettings(path=settings.path, limit=200, limit_order="first"))
    assert [one.id for one in first.rows] == [one.id for one in whole[:200]]
    assert first.facts[-1] == "vlsbench: only limit=200 (the first rows)"


def test_a_limit_is_of_the_rows_that_where_keeps(shared):
    settings = BenchmarkSettings(path=str(shared / "data" / "figstep"), where={"category_id": [3, 7]}, limit=10)
    rows = select_rows("safebench", "text", settings).rows
    assert Counter(one.columns["category_id"] for one in rows) == {"3": 5, "7": 5}


def test_a_twin_benchmark_is_limited_to_pairs(tmp_path):
    rows = select_rows("mssbench", "text", BenchmarkSettings(path=str(mssbench(tmp_path)), limit=3)).rows
    assert sorted(Counter(one.twin for one in rows).values()) == [2, 2, 2]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"limit": 3, "limit_order": "last"}, "limit_order=last: expected sample or first"), ({"limit": 0}, "limit=0")],
)
def test_a_limit_that_means_nothing_is_named(settings, expected):
    with pytest.raises(UserError, match=f"mini_vsil: {expected}"):
        select_rows("mini_vsil", "image", BenchmarkSettings(**settings))


def test_what_is_left_is_told_in_words():
    assert narrowing(BenchmarkSettings(limit=5, limit_seed=3)) == "limit=5 (a stratified sample, seed 3)"
    assert narrowing(BenchmarkSettings(limit_order="first")) is None


@pytest.mark.parametrize("config", [EvalConfig, LeakageConfig])
def test_order_and_seed_have_short_forms_for_every_benchmark(config):
    settings = settings_of(
        config(benchmark=["vlsbench", "safebench"], limit=5, limit_order="first", limit_seed=2), "safebench"
    )
    assert (settings.limit, settings.limit_order, settings.limit_seed) == (5, "first", 2)


def test_align_data_shows_what_a_limit_takes(tmp_path, capsys):
    mssbench(tmp_path)
    words = ["data", "benchmark=mssbench", f"path={tmp_path}", "limit=2", "limit_seed=1", "summary=true"]
    assert main(words) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["roles"]) == (4, {"harmful": 2, "benign": 2})
    assert summary["facts"][-1] == "mssbench: only limit=2 (a stratified sample, seed 1)"


@pytest.mark.parametrize("option", ["limit=2", "limit_order=first", "limit_seed=1", "where.category=a"])
def test_align_data_takes_no_limit_for_a_source(option, capsys):
    assert main(["data", "source=miniature", "subset=text_benign", "rows=3", option]) == 2
    assert "rows=" in capsys.readouterr().err


# rows= of a part of the training data


def test_a_part_takes_rows_of_every_role_category_and_source(tmp_path):
    records = [
        {"prompt": f"p {i}", "role": "harmful" if i < 60 else "benign", "category": "ab"[i % 2], "source": "xy"[i > 79]}
        for i in range(100)
    ]
    write_jsonl(tmp_path / "rows.jsonl", *records)
    read = read_source(Part(path=str(tmp_path / "rows.jsonl"), rows=10, seed=4))
    assert Counter(one.role for one in read.rows) == {"harmful": 6, "benign": 4}
    assert Counter(one.category for one in read.rows) == {"a": 5, "b": 5}
    assert Counter(one.columns["source"] for one in read.rows) == {"x": 8, "y": 2}
    (fact,) = read.facts
    assert "rows=10: 10 of 100 rows" in fact
    assert "seed=4" in fact


def test_a_part_that_takes_all_rows_says_nothing(tmp_path):
    part = Part(source="pku_saferlhf", subset="benign", path=str(pku_saferlhf(tmp_path)), rows=1)
    assert not [fact for fact in read_source(part).facts if "rows=1" in fact]


def test_a_part_of_vlguard_keeps_the_shares_of_its_kinds_of_image(tmp_path):
    part = Part(source="vlguard", path=str(vlguard(tmp_path)), rows=3)
    assert Counter(one.role for one in read_source(part).rows) == {"harmful": 2, "benign": 1}
