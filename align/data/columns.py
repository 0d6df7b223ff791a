"""Column names of your own files: `columns.prompt=question` reads the column `question` as the field `prompt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from align.data.files.records import Record
from align.data.hints import option
from align.errors import UserError, nearest

ABSENT = "\0"
"""The name of a column that no file has."""


class Columns:
    """The column of a file for each field of a row."""

    def __init__(self, what: str, fields: Sequence[str], given: Mapping[str, str]):
        """Raises UserError for a field that does not exist."""
        for field, column in given.items():
            if field not in fields:
                raise UserError(
                    f"{what}: {option(f'columns.{field}={column}')}: there is no field {field!r}"
                    f"{nearest(field, fields)}; the fields are {', '.join(fields)}"
                )
        self.given = given
        self.names = {field: given.get(field, ABSENT if field in given.values() else field) for field in fields}
        """{field: the column that it is read from}; a column that is given to a field is not read for another one."""
        self._unseen = dict(given)
        self._found: dict[str, None] = {}
        self._first = what

    def __getitem__(self, field: str) -> str:
        return self.names[field]

    @property
    def read(self) -> frozenset[str]:
        """The columns that are read; other columns are kept with the row."""
        return frozenset(self.names.values())

    def see(self, record: Record) -> None:
        """Note which columns one record has."""
        if not self._found:
            self._first = record.where
        self._found |= dict.fromkeys(record)
        self._unseen = {field: column for field, column in self._unseen.items() if column not in record}

    def refuse_absent(self) -> None:
        """Raise UserError if no record of the file had a column that `columns.<field>=` names."""
        for field, column in self._unseen.items():
            raise self.absent(field, column, self._first, tuple(self._found))

    def absent(self, field: str, column: str, where: str, found: Sequence[str]) -> UserError:
        """The error about an absent column that `columns.<field>=` names."""
        named = option(f"columns.{field}={column}")
        return UserError(
            f"{where}: no column `{column}`{nearest(column, found)}, which {named} names; found the columns "
            f"{', '.join(found) or '(none)'}. Correct {option(f'columns.{field}=')}"
        )


def refuse_columns(source: str, given: Mapping[str, str]) -> None:
    """Raise UserError for `columns.<field>=` of a source that knows the columns of its files."""
    if given and source != "local":
        raise UserError(
            f"{option('columns=')} is for source=local, and source={source} has its own columns; remove columns="
        )
