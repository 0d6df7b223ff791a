"""The training data of a run: read its parts, sample rows, apply views, check rows, and combine the parts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from align.config.registry import SOURCES, TWIN_SOURCES, resolve
from align.console import Report
from align.data import answers
from align.data.answer_file import with_file
from align.data.columns import refuse_columns
from align.data.duplicates import without_duplicates
from align.data.hints import Place, option, options_of
from align.data.images import drop_missing
from align.data.overlap import question_hash, short_hash, text_hash
from align.data.pixels import Found, hashes_of, readable
from align.data.reading import Read, Source, at_root, tell_unread_images
from align.data.sampling import stratified
from align.data.views import READS_IMAGES, captioned, check_labels, check_view, show
from align.errors import UserError
from align.rows import Row
from align.settings import Part, RunConfig


@dataclass
class TrainingData:
    """Rows as the model sees them, and the facts that the manifest records."""

    rows: list[Row]
    parts: dict[str, int]
    """Rows of each part, by its name in the recipe."""
    facts: list[str]
    """What was dropped or allowed, one printable line each."""
    own: list[Row] = field(default_factory=list, repr=False)
    """The same rows before a view changed them: a model that generates their responses sees these."""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """{kind of fault: ids of the rows dropped for it}"""
    _found: Found | None = field(default=None, repr=False)

    def without(self, common: Mapping[str, set[str]]) -> TrainingData:
        """Drop rows that a benchmark has too: {benchmark: ids}. Raises UserError if a part becomes empty."""
        facts = [
            f"{len(of)} rows dropped whose image or question is in {name} (on_overlap: drop), first {min(of)}"
            for name, of in common.items()
        ]
        return self._kept(set().union(*common.values()), facts, "on_overlap=drop")

    def without_faults(self, faults: Mapping[str, list[str]], facts: list[str]) -> TrainingData:
        """Drop rows that cannot be trained on: {kind of fault: ids}. Raises UserError if a part becomes empty."""
        kept = self._kept({row for of in faults.values() for row in of}, [], "on_bad_row=drop")
        return kept.with_dropped(faults, facts)

    def with_dropped(self, faults: Mapping[str, list[str]], facts: list[str]) -> TrainingData:
        """Return the same data with a record of dropped rows."""
        kinds = [*self.dropped, *faults]
        dropped = {kind: [*self.dropped.get(kind, []), *faults.get(kind, [])] for kind in kinds}
        return replace(self, dropped=dropped, facts=self.facts + facts)

    def _kept(self, out: set[str], facts: list[str], option: str) -> TrainingData:
        kept = [i for i, row in enumerate(self.rows) if row.id not in out]
        rows = [self.rows[i] for i in kept]
        parts = {part: sum(row.id.startswith(f"{part}/") for row in rows) for part in self.parts}
        if empty := [part for part, count in parts.items() if not count]:
            raise UserError(
                f"{option}: data.{empty[0]} would lose all its {self.parts[empty[0]]} rows; correct or replace this part's data"
            )
        own = [self.own[i] for i in kept]
        return replace(self, rows=rows, parts=parts, facts=self.facts + facts, own=own)

    def answered(self, config: RunConfig, ask: answers.Ask) -> TrainingData:
        """Add responses from `ask` to rows without one, in parts with `generate`. Raises UserError."""
        part_of = [row.id.partition("/")[0] for row in self.rows]
        rows, generated = answers.with_answers(self.rows, self.own, part_of, config.data, ask)
        return replace(self, rows=rows, facts=self.facts + generated)

    def manifest(self) -> dict[str, Any]:
        """The record of the data in a run's manifest; it also identifies the run."""
        with_image = sum(bool(row.images) for row in self.rows)
        return {
            "fingerprint": self.fingerprint,
            "order": _hash(*(row.id for row in self.rows)),
            "parts": self.parts,
            "views": {
                part: dict(Counter(row.view for row in self.rows if row.id.startswith(f"{part}/")))
                for part in self.parts
            },
            "rows": len(self.rows),
            "with_image": with_image,
            "facts": self.facts,
            **({"dropped": self.dropped} if self.dropped else {}),
        }

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits of all training data: texts, roles and decoded pixels, in order."""
        return _hash(*(json.dumps(record, sort_keys=True) for record in self.records()))

    def records(self) -> list[dict[str, Any]]:
        """One `rows.jsonl` record per row: its identity, its view, and hashes of its texts and images."""
        return [plan | {"images": images} for plan, images in zip(self.plan(), self.pixels, strict=True)]

    def plan(self) -> list[dict[str, Any]]:
        """`records` without the images, which are slow to decode."""
        return [
            {
                "id": row.id,
                "item": row.item,
                "role": row.role,
                "harm_in": row.harm_in,
                "view": row.view,
                "prompt": _hash(row.prompt, *map(str, row.history), *map(str, row.places)),
                "question": question_hash(row),
                **({"first_question": text_hash(row.requests[0])} if row.history else {}),
                "answers": _hash(
                    *(answer or "" for answer in (row.response, row.chosen, row.rejected, row.harmful_response))
                ),
            }
            for row in self.rows
        ]

    def verify_images(self, report: Report | None = None) -> None:
        """Decode every image, which may be slow, and report progress. Raises UserError."""
        self._found = hashes_of(self.rows, report)

    def unreadable(self) -> list[tuple[str, UserError]]:
        """(Row id, error) for rows with an image that cannot be decoded."""
        found = self._decoded()
        errors = [(row.id, found[image]) for row in self.rows for image in row.images]
        return list({row: error for row, error in errors if isinstance(error, UserError)}.items())

    @cached_property
    def pixels(self) -> list[list[str]]:
        """For each row, the hashes of its images. Raises UserError for an image that cannot be decoded."""
        found = self._decoded()
        return [[short_hash(readable(found[image])) for image in row.images] for row in self.rows]

    def _decoded(self) -> Found:
        if self._found is None:
            self.verify_images()
        return self._found or {}


@dataclass
class OwnRows:
    """The rows of all parts with their own images, before a view changes them."""

    rows: list[Row]
    parts: dict[str, int]
    facts: list[str]

    def without(self, ids: set[str]) -> OwnRows:
        """The rows with other ids."""
        rows = [row for row in self.rows if row.id not in ids]
        parts = {part: sum(row.id.startswith(f"{part}/") for row in rows) for part in self.parts}
        return OwnRows(rows, parts, self.facts)


def training_data(config: RunConfig, ask: answers.Ask | None = None) -> TrainingData:
    """Read every part of a run's data. `ask` generates absent responses; without `ask` they stay absent.

    Raises UserError.
    """
    data = shown(config, own_rows(config))
    return data.answered(config, ask) if ask else data


def own_rows(config: RunConfig) -> OwnRows:
    """Read every part of a run's data. Raises UserError."""
    if not config.data:
        raise UserError(
            f"recipe {config.recipe}: no training data; give suite=, or data.<part>.source= and data.<part>.path="
        )
    rows: list[Row] = []
    parts, facts = {}, []
    for name, part in config.data.items():
        read, notes = read_part(config, name)
        facts += notes
        view = part.view or config.view
        captions = captioned(name, part, len(read), view)
        parts[name] = len(read)
        rows += [
            replace(
                row, id=f"{name}/{row.id}", item=row.item or _identity(row), view="caption" if i in captions else view
            )
            for i, row in enumerate(read)
        ]
    repeated = [row_id for row_id, count in Counter(row.id for row in rows).items() if count > 1]
    if repeated:
        raise UserError(f"row id {repeated[0]!r} occurs twice in the training data; make ids unique within a part")
    return OwnRows(rows, parts, facts)


def shown(config: RunConfig, own: OwnRows) -> TrainingData:
    """Rows as the model sees them. Raises UserError if a part is empty, or if the view shows images and no row has one."""
    if empty := [part for part, count in own.parts.items() if not count]:
        raise UserError(f"data.{empty[0]}: no rows left")
    # A shuffled row gets a benign row's image: images of one kind for all rows reveal nothing about the response.
    with_images = [row for row in own.rows if row.images]
    placebo = [row for row in with_images if row.role == "benign" and row.view == "image"] or with_images
    data = TrainingData([show(row, row.view, placebo) for row in own.rows], own.parts, own.facts, own.rows)
    refuse_blind(config, data.rows)
    return data


def refuse_blind(config: RunConfig, rows: Sequence[Row]) -> None:
    """Raise UserError if the run's view shows images and no row has one."""
    if config.view in READS_IMAGES and not any(row.images for row in rows):
        raise UserError(
            f"view={config.view}: none of the {len(rows)} training rows has an image; check the column `image`, or set view=text"
        )


def read_part(config: RunConfig, name: str) -> tuple[list[Row], list[str]]:
    """A part's rows with their own images, before a view changes them, and the facts to record. Raises UserError."""
    part = config.data[name]
    view = part.view or config.view
    check_view(view)
    answers.check_settings(name, part)
    # In the controlled track an item with an absent image is left out of every arm, even of arms that do not show it.
    controlled = config.track == "controlled"
    needs_images = view in READS_IMAGES or controlled
    # A model that generates a response sees the row without a view, so another view does not help.
    asks = answers.GENERATE in (part.response, part.harmful_response)
    with options_of(Place(f"data.{name}", None if controlled or asks else f"data.{name}.view")):
        return _read(name, part, config.data_root, view, config.allow_label_conflict, needs_images)


def read_source(part: Part, data_root: str | None = None) -> Read:
    """The rows of a part, before a view, and the facts to record. Raises UserError."""
    if part.twins and part.source not in TWIN_SOURCES:
        raise UserError(
            f"{option('twins=true')}: only the sources {' and '.join(TWIN_SOURCES)} have items for the controlled track; use one of them, "
            f"or remove twins=true"
        )
    if part.rows is not None and part.rows < 1:
        raise UserError(f"{option(f'rows={part.rows}')}: expected at least 1")
    if part.source in SOURCES:
        refuse_columns(part.source, part.columns)
    source: Source = resolve(option("source"), part.source, SOURCES)
    found = source(at_root(part, data_root, part.source))
    read = found if isinstance(found, Read) else Read(found)
    rows, facts = read.rows, list(read.facts)
    other = [row for row in rows if part.role not in (None, row.role)]
    if other and part.source != "local":  # a local file may give the roles of some rows itself
        raise UserError(
            f"{option(f'role={part.role}')}: {len(other)} rows of source {part.source} are {other[0].role}, first {other[0].id}; select "
            f"other rows with {option('subset=')}, or remove role="
        )
    if part.answers is not None:
        rows, given = with_file(rows, part.answers, option("answers"))
        facts += given
    if part.deduplicate:
        rows, again = without_duplicates(rows)
        facts.append(f"{again} rows dropped that repeat an earlier row (deduplicate: true)")
    if part.rows is not None and len(rows) > part.rows:
        taken = stratified(rows, part.rows, part.seed, option(f"rows={part.rows}"))
        facts.append(
            f"rows={part.rows}: {len(taken)} of {len(rows)} rows, a sample stratified by role, category and source (seed={part.seed})"
        )
        rows = taken
    elif part.rows is not None and len(rows) < part.rows:
        facts.append(f"rows={part.rows}: only {len(rows)} rows exist")
    return replace(read, rows=rows, facts=facts)


def _read(
    name: str, part: Part, data_root: str | None, view: str, allow_label_conflict: bool, needs_images: bool
) -> tuple[list[Row], list[str]]:
    read = read_source(part, data_root)
    rows, facts = read.rows, [f"data.{name}: {fact}" for fact in read.facts]
    wants_images = needs_images or answers.GENERATE in (part.response, part.harmful_response)
    facts += tell_unread_images(f"data.{name}", read, wants_images)
    if conflicts := check_labels(rows, view, allow_label_conflict):
        facts.append(
            f"data.{name}: view={view} hides the only evidence for the response of {conflicts} rows (allow_label_conflict: true)"
        )
    answers.check_rows(name, rows, part)
    if needs_images or any(
        answers.lacking(row, part) for row in rows
    ):  # a generating model sees the row without a view
        rows, missing = drop_missing(rows, part.on_missing_image, f"data.{name}")
        facts += [missing] if missing else []
    if not rows:
        raise UserError(f"data.{name}: no rows left")
    return rows, facts


def _identity(row: Row) -> str:
    """The identity of a row outside a twin: a hash of its request, caption and images before a view changes them."""
    return _hash(row.prompt, row.caption or "", *map(repr, row.images), *map(repr, (*row.history, *row.places)))


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
