"""Workbooks: texts that cells share or have, numbers, absent cells, and files that are no workbooks."""

import zipfile

import pytest

from align.data.files.xlsx import xlsx_records
from align.errors import UserError
from tests.support.layouts import write_xlsx, zipped


@pytest.mark.parametrize("shared", [True, False])
def test_values_are_text_and_absent_cells_are_none(tmp_path, shared):
    rows = [{"id": 7, "text": "tea & <cups>", "note": None}, {"id": None, "text": None, "note": "late"}]
    write_xlsx(tmp_path / "book.xlsx", rows, shared)
    first, second = xlsx_records(tmp_path / "book.xlsx")
    assert first == {"id": "7", "text": "tea & <cups>", "note": None}
    assert second == {"id": None, "text": None, "note": "late"}
    assert (first.key, first.where) == ("1", f"{tmp_path}/book.xlsx, row 2")


def test_empty_rows_are_no_records_and_rows_keep_their_numbers(tmp_path):
    write_xlsx(tmp_path / "book.xlsx", [{"a": "x"}, {"a": None}, {"a": "y"}])
    assert [(one["a"], one.key, one.where[-5:]) for one in xlsx_records(tmp_path / "book.xlsx")] == [
        ("x", "1", "row 2"),
        ("y", "2", "row 4"),
    ]


def test_a_workbook_in_an_archive(tmp_path):
    write_xlsx(tmp_path / "set" / "book.xlsx", [{"a": "x"}])
    inside = zipfile.Path(zipped(tmp_path / "set")) / "set" / "book.xlsx"
    assert [dict(one) for one in xlsx_records(inside)] == [{"a": "x"}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"xl/worksheets/sheet1.xml": "<worksheet"}, "cannot be read as an .xlsx workbook"),
        ({"xl/workbook.xml": "<workbook/>"}, "cannot be read as an .xlsx workbook: .*sheet1.xml"),
        (None, "cannot be read as an .xlsx workbook"),
    ],
)
def test_a_file_that_is_no_workbook_is_named(tmp_path, content, said):
    file = tmp_path / "book.xlsx"
    file.write_bytes(b"no archive")
    if content:
        with zipfile.ZipFile(file, "w") as book:
            for name, text in content.items():
                book.writestr(name, text)
    with pytest.raises(UserError, match=f"book.xlsx: {said}"):
        list(xlsx_records(file))


def test_an_empty_sheet_and_a_column_that_occurs_twice_are_named(tmp_path):
    write_xlsx(tmp_path / "book.xlsx", [{"": None}])
    with pytest.raises(UserError, match="book.xlsx: no rows"):
        list(xlsx_records(tmp_path / "book.xlsx"))
    write_xlsx(tmp_path / "book.xlsx", [{"a": "x", "b": "y"}])
    with zipfile.ZipFile(tmp_path / "book.xlsx") as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode().replace("<v>1</v>", "<v>0</v>")
        texts = book.read("xl/sharedStrings.xml")
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", sheet)
        book.writestr("xl/sharedStrings.xml", texts)
    with pytest.raises(UserError, match="book.xlsx: the column 'a' occurs twice"):
        list(xlsx_records(tmp_path / "book.xlsx"))
