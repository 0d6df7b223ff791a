"""`align data source=local` of a file with other column names: the command that would read it, and its first rows."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from align.data.columns import Columns
from align.data.conversation import is_conversation
from align.data.files.folder import DataFolder
from align.data.files.image_bytes import exists
from align.data.files.records import Record, brief
from align.data.local import ANSWERS, FIELDS
from align.data.proposal import ENOUGH, as_options, proposed
from align.errors import UserError
from align.rows import ROLES
from align.settings import Part

SHOWN = 2
"""Rows that are shown."""
NEEDED = ("image", "images", *ANSWERS)
"""Fields that are proposed for a file that can be read without them."""
ALPACA = {"instruction", "input", "output"}
"""Columns of the source `alpaca`."""


@dataclass
class Proposal:
    """The columns of a file, and the field that each could be."""

    columns: list[str]
    fields: dict[str, str]
    """{field: column}"""
    readable: bool
    """Whether the file can be read without the proposal."""
    source: str | None
    """A source that reads files with these columns."""
    role: bool
    """Whether the rows have a role."""
    rows: list[str]
    """Lines on the first rows as they would be read."""

    def lines(self, arguments: Sequence[str]) -> list[str]:
        """What to print. `arguments` are those of the command, which the proposed command repeats."""
        fields = shlex.join(as_options(self.fields)) or "no column has a name or values that show what it is"
        shown = [f"columns: {', '.join(self.columns)}", f"Proposed: {fields}", *self.rows]
        if self.source:
            other = [f"source={self.source}" if one == "source=local" else one for one in arguments]
            shown.append(f"source={self.source} reads files with these columns: {_command(other)}")
        if "prompt" not in self.fields and not self.readable:
            return [*shown, "Name the column of the requests: columns.prompt=<column>"]
        options = [*arguments, *as_options(self.fields)]
        if self.role:
            return [*shown, f"To read it so: {_command(options)}"]
        return [
            *shown,
            *(f"To read it so, if its requests are {role}: {_command([*options, f'role={role}'])}" for role in ROLES),
        ]


def proposal(part: Part) -> Proposal | None:
    """What to propose for a file; None if its columns are those that are read. Raises UserError."""
    given = Columns("source=local", FIELDS, part.columns)
    folder = DataFolder.open("source=local", part)
    records = list(islice(folder.rows(), ENOUGH))
    fields = proposed(records, given.names)
    columns = list(dict.fromkeys(column for record in records for column in record))
    readable = given["prompt"] in columns
    if readable:  # other fields may be left out on purpose
        fields = {field: column for field, column in fields.items() if field in NEEDED}
    if (readable and not fields) or set(given.given.values()) - set(columns):  # reading it names an absent column
        return None
    return Proposal(
        columns,
        fields,
        readable,
        "alpaca" if set(columns) >= ALPACA else "conversations" if any(map(is_conversation, records)) else None,
        part.role is not None or "role" in fields or given["role"] in columns,
        [line for record in records[:SHOWN] for line in _row(record, folder, given.names | fields)],
    )


def _row(record: Record, folder: DataFolder, names: Mapping[str, str]) -> list[str]:
    read = {field: column for field, column in names.items() if record.get(column) not in (None, "", [])}
    lines = [f"{record.where}:"]
    for field, column in read.items():
        if field not in ("image", "images"):
            lines.append(f"  {field}: {brief(record[column])}")
            continue
        try:
            images = folder.cells(record, column)
        except UserError as error:
            lines.append(f"  {field}: {error}")
            continue
        lines += [
            f"  {field}: {image.name}{'' if exists(image) else ' (does not exist; set image_root=<folder>)'}"
            for image in images
        ]
    return lines


def _command(arguments: Sequence[str]) -> str:
    return shlex.join(["align", "data", *arguments])
