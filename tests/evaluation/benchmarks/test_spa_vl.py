"""SPA-VL's test set of harm: a table without responses."""

import pytest

from align.errors import UserError
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from tests.support.layouts import HARMS, counted, summaries, write_parquet


def question(number, shade, **more):
    kinds = {"class1": "Household", "class2": "Cups", "class3": "Old"}
    return {"image": shade, "question": f"May I drink of it, {number}?"} | kinds | more


def test_its_test_set_of_harm_beside_its_other_splits(tmp_path, capsys):
    rows = [question(1, 1), question(2, 2), question(3, 1)]
    write_parquet(tmp_path / "test" / "harm-00000-of-00002.parquet", rows[:2], "image")
    write_parquet(tmp_path / "test" / "harm-00001-of-00002.parquet", rows[2:], "image")
    write_parquet(tmp_path / "test" / "help-00000-of-00001.parquet", rows, "image")
    answered = [row | {"chosen": "Wait.", "rejected": "Yes."} for row in rows]
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", answered, "image")
    (found,) = summaries(capsys, "benchmark=spa_vl_harm", f"path={tmp_path}")
    assert counted(found) == {
        "rows": 3,
        "roles": {"harmful": 3, "benign": 0},
        "harm_in": HARMS | {"image": 3},
        "images": 3,
        "missing_images": 0,
        "categories": {"Household": 3},
        "facts": ["spa_vl_harm: 3 rows found, 265 are published"],
    }
    chosen = select_rows("spa_vl_harm", "image", BenchmarkSettings(path=str(tmp_path))).rows
    assert [row.id for row in chosen] == ["harm-1", "harm-2", "harm-3"]


def test_its_files_go_by_the_name_of_the_source(tmp_path, capsys):
    write_parquet(tmp_path / "spa_vl" / "test" / "harm-00000-of-00001.parquet", [question(1, 1)], "image")
    (found,) = summaries(capsys, "benchmark=spa_vl_harm", f"data_root={tmp_path}")
    assert found["rows"] == 1


def test_a_question_without_text_is_named(tmp_path):
    write_parquet(tmp_path / "harm-00000-of-00001.parquet", [question(1, 1, question="")], "image")
    with pytest.raises(UserError, match=r"harm-00000-of-00001.parquet, row 1: `question` is empty"):
        select_rows("spa_vl_harm", "text", BenchmarkSettings(path=str(tmp_path)))
