"""Decisions of reviewers: read from csv or json files, and applied by majority."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align.construction.item import DROPPED, KEPT, Item, Outcome
from align.construction.review.agreement import agreement
from align.construction.review.export import FOLDER, key_of
from align.construction.run import Done
from align.errors import UserError
from align.files import read_json, write_json

STORED = "decisions.json"
KEEP, DROP = "keep", "drop"
REVIEWERS, TIE = "reviewers", "reviewers_tie"
"""Why an item is dropped: most reviewers drop it, or as many keep it as drop it."""
NAMED = 5


@dataclass(frozen=True)
class Decision:
    """One person's decision about one item."""

    item: str
    key: str
    """Hash of what the person saw."""
    person: str
    decision: str
    note: str = ""


def read_decisions(files: Sequence[str], keys: Mapping[str, str] | None = None) -> list[Decision]:
    """Decisions of csv files (review.csv, filled in) and json files (saved by the page).

    With `keys` ({item: key}), decisions about other items or other texts do not count in a
    comparison of two decisions of one person; they are returned too. Raises UserError that names
    the file and row of an unknown decision, of two different decisions of one person, and of a
    missing column.
    """
    names = [Path(file).stem for file in files]
    found: dict[tuple[str, str, str], tuple[Decision, str]] = {}
    for file in files:
        for number, record in enumerate(_records(Path(file)), 1):
            where = f"{file}, row {number}"
            decision = _decision(record, where, Path(file).stem)
            if decision is None:
                continue
            if names.count(decision.person) > 1 and not str(record.get("person") or "").strip():
                raise UserError(
                    f"{where}: no `person`, and two files have the name {decision.person}; fill in the column"
                )
            one = (decision.person, decision.item, decision.key)
            if one in found and found[one][0].decision != decision.decision and _is_current(decision, keys):
                raise UserError(
                    f"{where}: {decision.person} decided {decision.decision} about {decision.item}, but "
                    f"{found[one][0].decision} in {found[one][1]}; keep one of the two"
                )
            found[one] = decision, where
    return [decision for decision, _ in found.values()]


def _is_current(decision: Decision, keys: Mapping[str, str] | None) -> bool:
    return keys is None or keys.get(decision.item) == decision.key


def import_decisions(files: Sequence[str], items: Sequence[Item], folder: Path) -> list[str]:
    """Read decisions, add them to those that are stored, and return lines about ignored and replaced ones.

    Raises UserError.
    """
    if not files:
        raise UserError("review=import: give decisions=<files>, saved by the page or filled in as csv")
    keys = {item.id: key_of(item) for item in items}
    decisions = read_decisions(files, keys)
    if not decisions:
        raise UserError(
            f"decisions={','.join(files)}: no row has a decision; fill in the column `decision` with {KEEP} or {DROP}"
        )
    unknown = [one for one in decisions if one.item not in keys]
    changed = [one for one in decisions if one.item in keys and one.key != keys[one.item]]
    current = [one for one in decisions if _is_current(one, keys)]
    if not current:
        raise UserError(f"decisions={','.join(files)}: no decision is about an item of this construction as it is now")
    before = {(one.person, one.item, one.key): one for one in stored_decisions(folder)}
    now = {(one.person, one.item, one.key): one for one in current}
    other = [one for key, one in now.items() if key in before and before[key].decision != one.decision]
    write_json(folder / FOLDER / STORED, {"schema": 1, "decisions": [asdict(one) for one in (before | now).values()]})
    told = (
        ("are about items that do not exist here and are ignored", unknown),
        ("are about items whose text or image changed and are ignored", changed),
        ("replace earlier ones of the same person", other),
    )
    return [f"{len(those)} decisions {what}: {_named(those)}" for what, those in told if those]


def _named(decisions: Sequence[Decision]) -> str:
    names = ", ".join(dict.fromkeys(one.item for one in decisions[:NAMED]))
    return f"{names}{', ...' if len(decisions) > NAMED else ''}"


def stored_decisions(folder: Path) -> list[Decision]:
    """Decisions of an earlier import; empty if there are none."""
    file = folder / FOLDER / STORED
    if not file.is_file():
        return []
    try:
        return [Decision(**one) for one in read_json(file)["decisions"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: damaged: {error}; remove it, and import the decisions again") from error


def review(items: Sequence[Item], decisions: Sequence[Decision]) -> tuple[Done, dict[str, Any]]:
    """Apply decisions by majority -> (a step of the funnel, facts about the review).

    An item without a decision stays, and is counted as not reviewed. A tie drops the item: the
    reviewers do not vouch for it.
    """
    keys = {item.id: key_of(item) for item in items}
    of_item: dict[str, list[Decision]] = {}
    for one in decisions:
        if keys.get(one.item) == one.key:
            of_item.setdefault(one.item, []).append(one)
    outcomes = [_outcome(item, of_item.get(item.id, [])) for item in items]
    labels = {item: {one.person: one.decision for one in of} for item, of in of_item.items()}
    people = sorted({one.person for of in of_item.values() for one in of})
    facts = {
        "people": len(people),
        "reviewed": len(of_item),
        "not_reviewed": len(items) - len(of_item),
        "outdated": sum(keys.get(one.item) != one.key for one in decisions),
        "dropped": sum(outcome.status == DROPPED for outcome in outcomes),
        "agreement": agreement(labels, (KEEP, DROP)),
        "disagreements": [
            {"item": item, "decisions": of, "notes": {one.person: one.note for one in of_item[item] if one.note}}
            for item, of in labels.items()
            if len(set(of.values())) > 1
        ],
    }
    return Done("review", tuple(items), tuple(outcomes)), facts


def _outcome(item: Item, decisions: Sequence[Decision]) -> Outcome:
    votes = Counter(one.decision for one in decisions)
    if votes[DROP] and votes[DROP] >= votes[KEEP]:
        notes = "; ".join(one.note for one in decisions if one.note and one.decision == DROP)
        reason = TIE if votes[DROP] == votes[KEEP] else REVIEWERS
        return Outcome(item.id, DROPPED, reason, notes or None, counts=dict(votes))
    return Outcome(item.id, KEPT, made=(item,), counts=dict(votes))


def _records(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise UserError(f"decisions={file}: this file does not exist; correct the path")
    if file.suffix.lower() == ".json":
        found = read_json(file)
        rows = found.get("decisions") if isinstance(found, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(
                f"{file}: expected a file that the review page saved: {{'person': ..., 'decisions': [...]}}"
            )
        return [{"person": found.get("person"), **row} for row in rows]
    try:
        # A spreadsheet may add a byte order mark.
        return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read as csv: {error}; save it as UTF-8 csv") from error


def _decision(record: dict[str, Any], where: str, default_person: str) -> Decision | None:
    """A record's decision; None if the reviewer left it empty."""
    lacking = [column for column in ("id", "key", "decision") if record.get(column) is None]
    if lacking:
        raise UserError(f"{where}: no column {', '.join(lacking)}; found {', '.join(map(str, record)) or 'nothing'}")
    said = str(record["decision"]).strip().lower()
    if not said:
        return None
    if said not in (KEEP, DROP):
        raise UserError(f"{where}: decision is {record['decision']!r}, expected {KEEP}, {DROP} or nothing")
    person = str(record.get("person") or "").strip() or default_person
    item = str(record["id"]).removeprefix("'")  # the mark of a text in a spreadsheet
    return Decision(item, str(record["key"]), person, said, str(record.get("note") or "").strip())
