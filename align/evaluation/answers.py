"""Responses to one benchmark: read stored ones, generate missing ones, write each at once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from align.answering.answer import Unanswered, how, parted_together, record_of
from align.answering.model import Model
from align.answering.thinking import thinking_of, unheeded
from align.answering.thoughts import MISPLACED
from align.console import Display, shortened
from align.data.pixels import pixels_of
from align.errors import UserError
from align.evaluation.selection import Selected
from align.evaluation.stored_rows import write_requests
from align.evaluation.turns import continued, waves
from align.evaluation.verdicts import UNFINISHED, Verdict
from align.files import append_jsonl, keep_lines, open_jsonl, read_json, refuse_other, write_json
from align.rows import Row
from align.settings import Evaluate

SCHEMA = 1
SHOWN_EARLY = 5
"""This many responses are shown at once, so that a wrong template or a blank image is noticed."""
DECLINED = "content_filter"
"""finish_reason of a row that the model's endpoint rejected."""

UNUSABLE = "unusable"
"""finish_reason of a row that the model cannot process."""

AGREEMENT = "agreement"
"""The entry of settings.json that says how closely another engine agrees with transformers."""
RESULTS = ("summary.*.json", "items.*.jsonl", "thoughts.*")
"""Files of results, which belong to the responses that were judged."""

Responses = dict[str, dict[str, Any]]
"""{row id: line of responses.jsonl}"""


class Early:
    """A display that also shows the first responses."""

    def __init__(self, display: Display):
        self.display, self._left = display, SHOWN_EARLY

    def show(self, name: str, row: Row, response: str) -> None:
        """Show a response, if it is one of the first."""
        if self._left:
            self._left -= 1
            self.display.say(f"{name} {row.id}: {shortened(row.prompt)} -> {shortened(response)}")


@dataclass
class Answered:
    """A benchmark with its responses."""

    chosen: Selected
    folder: Path
    responses: Responses
    clusters: dict[str, str]
    """{row id: its cluster}; items of one cluster are not independent"""
    pixels: dict[str, list[str]] | None
    """{row id: `pixel_hash` of each image}; None in a view that changes the images"""
    facts: list[str]

    @classmethod
    def of(cls, model: Model, chosen: Selected, config: Evaluate, folder: Path, early: Early) -> Answered:
        """Generate missing responses.

        Raises UserError if the folder stores responses of another model or to other rows.
        """
        folder = folder / chosen.name
        _keep_settings(folder, chosen, config, model)
        pixels = dict(zip((row.id for row in chosen.rows), pixels_of(chosen.rows), strict=True))
        own = pixels if chosen.view == "image" else None
        write_requests(folder, chosen.items, own)
        responses: Responses = {}
        asked: dict[str, Row] = {}
        turns = waves(chosen.rows)
        for wave in turns:
            texts = texts_of(responses)
            for row in wave:
                asked[row.id] = continued(row, asked, texts)
                pixels[row.id] = [*(pixels[row.follows] if row.follows else ()), *pixels[row.id]]
            rows = [asked[row.id] for row in chosen.rows if row.id in asked]
            responses = _answered(model, chosen.name, rows, pixels, responses, config, folder, early, wave is turns[-1])
        if len(turns) > 1:  # judges see the conversations
            items: dict[str, Row] = {}
            for row in chosen.items:
                items[row.id] = continued(row, items, texts_of(responses))
            chosen = replace(chosen, rows=[asked[row.id] for row in chosen.rows], items=list(items.values()))
        clusters = {row.id: cluster_of(chosen, row, pixels[row.id]) for row in chosen.rows}
        _say_unusable(chosen.name, responses, early.display)
        _say_unfinished(chosen.name, responses, model, early.display)
        facts = [*chosen.facts, *_keep_agreement(folder, model)]
        line = unheeded(thinking_of(config.generation), responses.values())
        if line:
            early.display.say(f"{chosen.name}: {line}")
            facts.append(line)
        return cls(chosen, folder, responses, clusters, own, facts)

    @property
    def settled(self) -> dict[str, Verdict]:
        """{row id: verdict} without a judge: rows that were declined, unusable or unfinished."""
        of_row: dict[str, Verdict] = {}
        for row_id, record in self.responses.items():
            if record["finish_reason"] == DECLINED:
                detail = f"the model gave no response: {record['detail']}"
                of_row[row_id] = Verdict("invalid", "declined", detail=detail, again=True)
            elif record["finish_reason"] == UNUSABLE:
                of_row[row_id] = Verdict("invalid", UNUSABLE, detail=record["detail"])
            elif why := record.get("unfinished"):
                of_row[row_id] = Verdict("invalid", UNFINISHED, incoherent=True, detail=why, again=True)
        return of_row


def texts_of(responses: Responses) -> dict[str, str]:
    """{row id: text of its response}"""
    return {row_id: record["response"] for row_id, record in responses.items()}


def _answered(
    model: Model,
    name: str,
    rows: Sequence[Row],
    pixels: dict[str, list[str]],
    before: Responses,
    config: Evaluate,
    folder: Path,
    early: Early,
    last: bool,
) -> Responses:
    """The responses to rows, of which those in `before` are known. Raises UserError if rows get none."""
    hashes = {row.id: _hash(model.prompt(row), *pixels[row.id], str(how(config.generation))) for row in rows}
    lacking = {row.id: row.follows for row in rows if row.follows and not before[row.follows]["response"]}
    return _answers(model, name, rows, hashes, lacking, folder / "responses.jsonl", early, last)


def _say_unusable(name: str, responses: Responses, display: Display) -> None:
    """Report rows that the model cannot process; they have no verdict."""
    why = {row_id: record["detail"] for row_id, record in responses.items() if record["finish_reason"] == UNUSABLE}
    if why:
        first = next(iter(why))
        display.say(
            f"{name}: the model cannot process {len(why)} of {len(responses)} rows, which count as invalid. Row "
            f"{first}: {why[first]}"
        )


def _say_unfinished(name: str, responses: Responses, model: Model, display: Display) -> None:
    """Report responses that hold only thoughts, with what to do, before judges are called."""
    why = {row_id: record["unfinished"] for row_id, record in responses.items() if "unfinished" in record}
    if not why:
        return
    first = next(iter(why))
    parts = [
        f"{name}: {len(why)} of {len(responses)} responses are unfinished and count as incoherent",
        f"{first}: {why[first]}",
    ]
    if any(responses[row_id]["finish_reason"] == "length" for row_id in why):
        parts.append("give a higher generation.max_new_tokens= to leave room for thought and response")
    if any(MISPLACED in reason for reason in why.values()) and not model.marks.given:
        parts.append("if the chat template opens the thought, set generation.thought_marks=<opening>,<closing>")
    display.say("; ".join(parts))


def _keep_settings(folder: Path, chosen: Selected, config: Evaluate, model: Model) -> None:
    """Record the evaluation's settings.

    Raises UserError if stored responses have other settings.
    """
    rows = hashlib.sha256("\n".join(row.id for row in chosen.rows).encode()).hexdigest()[:16]
    wanted: dict[str, Any] = {
        "schema": SCHEMA,
        "benchmark": chosen.benchmark.name,
        "view": chosen.view,
        "rows": rows,
        "generation": how(config.generation),
        **model.identity,
        "defence": config.defence,
    }
    file, responses = folder / "settings.json", folder / "responses.jsonl"
    # Without stored responses nothing can be mixed, so settings may change.
    there = read_json(file) if file.is_file() and responses.is_file() and responses.stat().st_size else {}
    selection, asked = chosen.narrowed or "all rows", there.pop("selection", "not recorded")
    compared = {AGREEMENT: there.pop(AGREEMENT)} if AGREEMENT in there else {}
    if there and "defence_settings" in wanted:
        # Earlier versions did not store it; then the hashes of prompts say which responses are of this defence.
        there.setdefault("defence_settings", wanted["defence_settings"])
    if there and there.get("rows") != rows:
        raise UserError(
            f"{folder} stores responses to other rows of {chosen.name} (selection: {asked}); this evaluation has "
            f"{len(chosen.rows)} rows (selection: {selection}). Give another output_dir=, or remove that folder."
        )
    refuse_other(folder, "evaluation", there, wanted | {key: None for key in there if key not in wanted})
    write_json(file, wanted | {"selection": selection} | compared)


def _keep_agreement(folder: Path, model: Model) -> list[str]:
    """Record how closely the model's engine agreed with transformers -> the fact for the summary."""
    file = folder / "settings.json"
    if model.agreement is not None:
        write_json(file, read_json(file) | {AGREEMENT: asdict(model.agreement) | {"text": str(model.agreement)}})
    found = read_json(file).get(AGREEMENT)
    return [found["text"]] if found else []


def cluster_of(chosen: Selected, row: Row, pixels: Sequence[str]) -> str:
    """The cluster of a row: the benchmark's cluster, or the image if that says no more.

    Images are identified by pixels: one image in two benchmarks, or under two paths, is one
    cluster.
    """
    # A cluster that is the row, its twin or its image's name says no more than the pixels do.
    own = {row.id, row.twin, *(image.name for image in row.images)}
    if pixels and chosen.view == "image" and (row.cluster is None or row.cluster in own):
        return pixels[0][:16]
    return f"{chosen.benchmark.name}/{row.cluster or row.id}"


def _answers(
    model: Model,
    name: str,
    rows: Sequence[Row],
    hashes: dict[str, str],
    lacking: dict[str, str],
    path: Path,
    early: Early,
    last: bool,
) -> Responses:
    """Stored responses, and missing ones generated now. `hashes` is {row id: hash of its prompt}.

    Rows in `lacking` are not asked: the turn that they follow has no response. `last`: no further
    rows are asked, so other lines of the file are removed. Raises UserError if rows get no response.
    """
    kept, file = open_jsonl(path)
    unanswered: list[Unanswered] = []
    passing: set[str] = set()
    of = {row.id: row for row in rows}
    with file:
        stored = {
            record["id"]: record
            for record in kept
            # Unusable rows are checked again: the check is cheap and depends on the model's files.
            if hashes.get(record["id"]) == record["prompt_hash"] and record["finish_reason"] != UNUSABLE
        }
        done = parted_together(stored, model.marks)
        early.display(name, len(done), len(rows))
        for row_id, follows in lacking.items():
            why = Unanswered(row_id, f"the turn before, {follows}, has no response", unusable=True)
            done[row_id] = _record(why, model) | {"prompt_hash": hashes[row_id]}
        waiting = [row for row in rows if row.id not in done]
        if (
            waiting or {key: of for key, of in done.items() if key not in lacking} != stored
        ):  # results of earlier responses would be taken for results of these
            for former in (file for pattern in RESULTS for file in path.parent.glob(pattern)):
                former.unlink()
        for answer in model.answers(waiting):
            if isinstance(answer, Unanswered) and not (answer.declined or answer.unusable):
                unanswered.append(answer)
                continue
            record = _record(answer, model) | {"prompt_hash": hashes[answer.id]}
            done[answer.id] = record
            if isinstance(answer, Unanswered) and not (answer.final or answer.unusable):
                passing.add(answer.id)  # the same command tries again
            else:
                append_jsonl(file, record)
            early.show(name, of[answer.id], str(record.get("raw", record["response"])))
            early.display(name, len(done), len(rows), model.usage())
    if unanswered:
        first, left = unanswered[0], ", ".join(one.id for one in unanswered[:5])
        raise UserError(
            f"{name}: {len(unanswered)} of {len(rows)} rows got no response from {model.name}{model.place}: "
            f"{left}{', ...' if len(unanswered) > 5 else ''}. Row {first.id}: {first.told}. The other responses are "
            f"stored in {path}. To resume, give the same command."
        )
    done = parted_together(done, model.marks)
    if last:
        keep_lines(path, [done[row.id] for row in rows if row.id not in passing])
    return {row.id: done[row.id] for row in rows}


def _record(answer: Any, model: Model) -> dict[str, Any]:
    if isinstance(answer, Unanswered):
        finish_reason = UNUSABLE if answer.unusable else DECLINED
        nothing = {"response": "", "finish_reason": finish_reason, "new_tokens": None, "seconds": 0.0}
        spent = {"defence": asdict(answer.defended)} if answer.defended else {}
        return {"id": answer.id} | nothing | spent | {"detail": answer.reason}
    return record_of(answer, model.marks)


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
