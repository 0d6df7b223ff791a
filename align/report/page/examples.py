"""Examples of responses: the same items for every method, for comparison side by side."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.evaluation.answers import DECLINED
from align.evaluation.stored_rows import FILE
from align.files import read_jsonl
from align.report.arms import Arm
from align.report.names import is_control, sets_of
from align.report.page.images import Images
from align.report.run_results import Evaluated
from align.report.tables.categories import sub_category_of
from align.report.tables.rates import labels, sorted_arms

UNKNOWN = "unknown: an earlier version evaluated this item and did not store it; align eval run=<run> stores it"


def examples(arms: Sequence[Arm], most: int, images: Images, seed: int = 0) -> tuple[dict[str, Any], list[str]]:
    """-> (data of the page's examples browser, notes).

    At most `most` responses; if there are more, items are drawn at random, the same items for all
    methods. Data: {methods: [{name}], sets: [{name, kind, shown, of}], items: [{set, id, request,
    ...}], answers: [for each method: for each item its response or null], images: {key: data URL},
    first: what to show first}
    """
    arms = sorted_arms(arms)
    shown = [(arm, arm.runs[0]) for arm in arms]  # only the first seed: more seeds would only make the page longer
    several = len({arm.row["model"] for arm in arms}) > 1
    tracks = len({arm.row["track"] for arm in arms}) > 1
    label = labels([arm.row for arm in arms])
    methods = [{"name": _method_name(arm, label(arm.row), several, tracks)} for arm, _ in shown]
    names = [name for name in sets_of([arm.row for arm in arms]) if not is_control(name)]
    notes: list[str] = []
    read = {name: [_answers(run, name, notes) for _, run in shown] for name in names}
    ids = {name: list(dict.fromkeys(row_id for of in read[name] for row_id in of)) for name in names}
    kept = _drawn(ids, {name: sum(map(len, read[name])) for name in names}, most, seed)
    sets, items = [], []
    answers: list[list[Any]] = [[] for _ in methods]
    for place, name in enumerate(names):
        kind = next(arm.row["results"][name]["kind"] for arm in arms if name in arm.row["results"])
        sets.append({"name": name, "kind": kind, "shown": len(kept[name]), "of": len(ids[name])})
        asked = _asked([run for _, run in shown], name, notes)
        for row_id in kept[name]:
            items.append({"set": place, "id": row_id, **_item(asked.get(row_id), name, images, notes)})
            for of_method, of_set in zip(answers, read[name], strict=True):
                of_method.append(of_set.get(row_id))
    if images.left_out:
        notes.append(f"Images left out of this page because it is full: {images.left_out}. Give a larger images_mb=.")
    values = {"methods": methods, "sets": sets, "items": items, "answers": answers, "images": images.found}
    values["first"] = _first(arms, sets)
    return values, list(dict.fromkeys(notes))


def _first(arms: Sequence[Arm], sets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """First view: a text-only arm next to its multimodal counterpart, on a leak-free benchmark."""
    free = next((i for i, of in enumerate(sets) if of["kind"] == "vsil_free"), 0)
    trained = [(i, arm.row) for i, arm in enumerate(arms) if arm.row["method"]]
    for i, row in trained:
        kind = row["name"].partition("_")[2]
        named = (j for j, other in trained if other["name"] == f"mm_{kind}" and other["model"] == row["model"])
        if row["view"] == "text" and (second := next(named, None)) is not None:
            return {"set": free, "method": i, "second": second}
    return {"set": free, "method": trained[0][0] if trained else 0, "second": None}


def _method_name(arm: Arm, label: str, several: bool, tracks: bool) -> str:
    parts = [arm.row["model"]] if several else []
    return " ".join([*parts, label, *([f"({arm.row['track']} track)"] if tracks and not arm.row["method"] else [])])


def _drawn(ids: dict[str, list[str]], answers: dict[str, int], most: int, seed: int) -> dict[str, list[str]]:
    """Draw the same share of items from every benchmark, in their order."""
    share = min(1.0, most / max(1, sum(answers.values())))
    draw = random.Random(seed)
    kept = {}
    for name, of_set in ids.items():
        wanted = int(share * len(of_set)) or min(
            1, most, len(of_set)
        )  # at least one item of each benchmark, if there is room
        chosen = set(draw.sample(range(len(of_set)), wanted))
        kept[name] = [row_id for i, row_id in enumerate(of_set) if i in chosen]
    return kept


def _answers(run: Evaluated, name: str, notes: list[str]) -> dict[str, Any]:
    """{row id: [response, verdict, the judge's reason, flags, and the thought if there is one]}.

    Flags: `c` truncated at max_new_tokens, `d` declined by the endpoint, `t` thought ended by its budget.
    """
    result = run.row["results"].get(name)
    folder = run.run.evaluation / name
    if result is None:
        return {}
    try:
        verdicts = _verdicts(folder / f"verdicts.{result['judge']}.jsonl", result)
        return {
            str(record["id"]): _answer(record, verdicts.get(record["id"]))
            for record in read_jsonl(folder / "responses.jsonl")
        }
    except (UserError, KeyError, TypeError, AttributeError) as error:
        notes.append(f"{folder}: its responses are not shown: {error}")
        return {}


def _verdicts(file: Path, result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Verdicts of the result's judge; a file may also hold verdicts of another prompt or model."""
    identity = {"judge_version": result["judge_version"], "prompt_hash": result["prompt_hash"]}
    records = [one for one in read_jsonl(file) if all(one.get(key) == value for key, value in identity.items())]
    settings = result["judge_settings"]
    return {one["id"]: one for one in records if settings is None or one.get("settings", settings) == settings}


def _answer(record: dict[str, Any], verdict: dict[str, Any] | None) -> list[Any]:
    said = verdict or {"verdict": "no verdict", "reason": None}
    label = "incoherent" if said.get("incoherent") else said["verdict"]
    flags = "c" * (record["finish_reason"] == "length") + "d" * (record["finish_reason"] == DECLINED)
    reason = " ".join(str(part) for part in (said.get("reason"), said.get("detail")) if part)
    unfinished = bool(record.get("unfinished") and record.get("raw"))  # all that it wrote is shown
    said_text = record["raw"] if unfinished else record["response"]
    thought = [str(record["thought"])] if record.get("thought") and not unfinished else []
    flags += "t" * bool(record.get("thought_cut"))
    return [_text(said_text), str(label), "" if reason == said["verdict"] else reason, flags, *thought]


def _asked(runs: Sequence[Evaluated], name: str, notes: list[str]) -> dict[str, dict[str, Any]]:
    """{row id: line of rows.jsonl}, merged over all runs."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        file = run.run.evaluation / name / FILE
        if name in run.row["results"] and file.is_file():
            try:
                found = {str(record["id"]): record for record in read_jsonl(file)} | found
            except (UserError, KeyError, TypeError) as error:
                notes.append(f"{file}: its requests are not shown: {error}")
    return found


def _item(record: dict[str, Any] | None, name: str, images: Images, notes: list[str]) -> dict[str, Any]:
    unknown = {
        "request": UNKNOWN,
        "harmful": True,
        "tells": False,
        "category": None,
        "image": None,
        "why": "unknown",
    }
    if record is None:
        return unknown
    try:
        image, why = images.add(record, name)
        return {
            "request": _text(record["prompt"]),
            "plain": _text(record["request"]),
            "harmful": record["role"] != "benign",
            "tells": record["harm_in"] in ("text", "both"),
            "category": _text(record["category"]),
            "sub": sub_category_of(record["columns"]),
            "image": image,
            "why": why,
        }
    except (KeyError, TypeError, AttributeError) as error:
        notes.append(
            f"{name}: a line of {FILE} does not hold the request ({error!r}). To write the file again: align eval "
            "run=<run>"
        )
        return unknown


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
