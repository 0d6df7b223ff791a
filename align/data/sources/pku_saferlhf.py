"""PKU-SafeRLHF (arXiv 2406.15513): prompts with two responses each, which people labelled as safe or unsafe. Text only.

Files: one jsonl per model that wrote responses, data/<model>/train.jsonl. A prompt recurs with other
responses; it is one row here.
"""

from __future__ import annotations

from collections.abc import Sequence

from align.data.answers import GENERATE, paired
from align.data.files.folder import DataFolder
from align.data.files.records import Record, as_text, shown
from align.data.hints import option
from align.data.overlap import text_hash
from align.data.reading import Read, check_subset
from align.errors import UserError
from align.rows import Row
from align.settings import Part

HUB = "PKU-Alignment/PKU-SafeRLHF"
FILES = ["data/*/train.jsonl", "data/train.jsonl", "train.jsonl", "train*.jsonl"]
SUBSETS = ("harmful", "benign", "mixed")
"""harmful: both responses of some pair are unsafe; benign: every response is safe; mixed: all other prompts."""


def read(part: Part) -> Read:
    """The source `pku_saferlhf`: the prompts of a subset, each once. Raises UserError.

    Harmful prompts get a safe response of the dataset, if it has one. The paper used responses of a model,
    which are not published: `answers=<file>` reads responses from a file, `response=generate` generates
    them. Without either, prompts without a safe response are dropped and counted.
    """
    check_subset("source=pku_saferlhf", part.subset, SUBSETS, needed=True)
    folder = DataFolder.open("source=pku_saferlhf", part, HUB, FILES[:1])
    prompts: dict[str, list[Record]] = {}
    for record in folder.records(*FILES):
        prompts.setdefault(text_hash(record.text("prompt")), []).append(record)
    rows = [
        _row(f"pku-{number}", of_prompt, str(part.subset))
        for number, of_prompt in enumerate(prompts.values(), start=1)
        if _subset(of_prompt) == part.subset
    ]
    pairs = sum(map(len, prompts.values()))
    facts = [f"{pairs} pairs of {len(prompts)} different prompts, {len(rows)} of them {part.subset}"]
    if part.subset != "benign" and part.answers is None and part.response != GENERATE:
        whole = [row for row in rows if row.response is not None]
        remedy = f"{option('answers=<file>')} or {option('response=generate')} adds one"
        facts.append(f"{len(rows) - len(whole)} of them dropped, which have no safe response in the dataset ({remedy})")
        rows = whole
    if not rows:
        raise UserError(
            f"source=pku_saferlhf: {option(f'subset={part.subset}')}: no rows in {folder.root}; {'; '.join(facts)}"
        )
    return Read(rows, facts)


def _subset(pairs: Sequence[Record]) -> str:
    safe = [_is_safe(pair) for pair in pairs]
    if not all(any(of_pair) for of_pair in safe):
        return "harmful"
    return "benign" if all(all(of_pair) for of_pair in safe) else "mixed"


def _row(row_id: str, pairs: Sequence[Record], subset: str) -> Row:
    safe = [
        pair.text(f"response_{i}") for pair in pairs for i in _order(pair, "better_response_id") if _is_safe(pair)[i]
    ]
    # The response that people called less safe, from a pair with two unsafe responses if one exists.
    worst = sorted(pairs, key=lambda pair: sum(_is_safe(pair)))
    unsafe = [(pair, i) for pair in worst for i in reversed(_order(pair, "safer_response_id")) if not _is_safe(pair)[i]]
    harmful = subset != "benign"
    row = Row(
        id=row_id,
        prompt=pairs[0].text("prompt"),
        response=safe[0] if safe else None,
        harmful_response=unsafe[0][0].text(f"response_{unsafe[0][1]}") if unsafe else None,
        role="harmful" if harmful else "benign",
        harm_in="text" if harmful else "none",
        source="pku_saferlhf",
        category=_category(*unsafe[0]) if unsafe else None,
    )
    return paired(row)


def _is_safe(pair: Record) -> tuple[bool, bool]:
    return pair.flag("is_response_0_safe"), pair.flag("is_response_1_safe")


def _order(pair: Record, column: str) -> list[int]:
    """Indices of the two responses; the response that the column names is first."""
    first = pair.get(column)
    if not isinstance(first, int) or isinstance(first, bool) or first not in (0, 1):
        raise UserError(f"{pair.where}: `{column}` is {shown(first)}, expected 0 or 1")
    return [first, 1 - first]


def _category(pair: Record, i: int) -> str | None:
    """The first harm category that people gave a response; earlier revisions of the dataset have none."""
    column = f"response_{i}_harm_category"
    harms = pair.get(column)
    if harms is None:
        return None
    if not isinstance(harms, dict) or not all(isinstance(there, bool) for there in harms.values()):
        raise UserError(f"{pair.where}: `{column}` is {shown(harms)}, expected an object with values true or false")
    return next((as_text(name, column, pair.where) for name, there in harms.items() if there), None)
