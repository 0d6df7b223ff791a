"""Read the safety of thoughts against that of answers from a run folder (`thoughts.<judge>.json` and `.jsonl`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.errors import UserError
from align.evaluation.thought_safety import CELLS, WITHOUT
from align.files import read_json, read_jsonl
from align.report.file_schema import Form, checked, counts, mapping, or_none, text
from align.report.items import Items, numbered

RESULT: Form = {
    "judge": (text, "a string"),
    "judge_version": (text, "a string"),
    "prompt_hash": (or_none(text), "a string or null"),
    "judge_settings": (mapping, "an object"),
    "counts": (counts, "{label: how many}"),
}
ITEM: Form = {
    "id": (text, "a string"),
    "label": (lambda value: value in (*CELLS, *WITHOUT), f"one of {', '.join((*CELLS, *WITHOUT))}"),
    "cluster": (text, "a string"),
}


@dataclass(frozen=True)
class Thoughts:
    """One judge's labels of the thoughts and answers of a benchmark's harmful rows."""

    result: dict[str, Any]
    """The values of the json file."""
    items: Items
    """Rows in one of the four cells; `good` has no meaning here."""

    def share_of(self, cell: str) -> Items:
        """The rows in the four cells, good if they are in this one."""
        good = np.array([one == cell for one in self.items.labels], dtype=bool)
        of = self.items
        return Items(of.ids, of.labels, good, of.clusters, of.categories)


def read_thoughts(folder: Path) -> dict[str, Thoughts]:
    """{judge: its labels} of a benchmark's folder; empty if no judge saw thoughts. Raises UserError."""
    found = {}
    for file in sorted(folder.glob("thoughts.*.json")):
        result = checked(file, read_json(file), RESULT)
        of_items = file.with_suffix(".jsonl")
        lines = [checked(of_items, line, ITEM) for line in read_jsonl(of_items)]
        counted = {label: n for label, n in result["counts"].items() if n}
        if (there := Counter(line["label"] for line in lines)) != counted:
            raise UserError(f"{of_items}: found {dict(there)}, but {file.name} counts {counted}. Evaluate it again.")
        inside = [line for line in lines if line["label"] in CELLS]
        labels, clusters = [line["label"] for line in inside], numbered([line["cluster"] for line in inside])
        nothing = np.zeros(len(inside), dtype=bool)
        items = Items([line["id"] for line in inside], labels, nothing, clusters, [None] * len(inside))
        found[result["judge"]] = Thoughts(result, items)
    return found
