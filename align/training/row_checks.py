"""Check every row of the training data before a model is loaded, and report all faults at once.

A row is measured as it will be rendered: its texts are tokenized, and its image tokens are computed
from the image sizes, so no image is decoded. Measured lengths are cached per row, so a second start
measures only new rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from filelock import FileLock

from align.batches.collators import Collator
from align.console import Report
from align.data.files.stamp import stamp_of
from align.devices import usable_processors
from align.errors import BadRow, UserError
from align.files import append_jsonl, cache_folder, open_jsonl
from align.interruption import begin_worker
from align.rows import Row

SCHEMA = 1
"""Version of the checks. Increase it when they change, so that cached results are not used."""
MANY = 4096
"""From this number of rows on, worker processes measure them. For fewer rows, starting workers
takes longer."""
CHUNK = 256
OPPOSITE = (("chosen", "rejected"), ("response", "harmful_response"))
"""Pairs of answers: the wanted one and the unwanted one."""
NAMED = 5
"""Maximum number of rows that are named for each kind of fault. All rows are counted."""
DESCRIBED = {
    "no_answer": "without an answer that the method needs",
    "no_caption": "without a caption that their view shows",
    "empty_prompt": "with an empty prompt",
    "empty_answer": "with an empty answer",
    "same_answers": "whose wanted and unwanted answers are the same",
    "special_token": "with a special token of the model in a text",
    "template": "whose answer the chat template changes",
    "image_unreadable": "with an image that cannot be read",
    "image_shape": "with an image shape that the model does not accept",
    "too_long": "longer than train.max_length",
    "too_long_for_model": "longer than the model's context",
}
"""Kind of fault -> how an error describes its rows."""


@dataclass(frozen=True)
class Measured:
    """The lengths of a row that can be rendered."""

    lengths: dict[str, int]
    """{prompt: number of its tokens; answer field: tokens of the prompt and that answer}"""
    supervised: int
    """Number of tokens of all its answers."""
    unknown: int
    """Number of answer tokens that the tokenizer does not know."""


NAMES = tuple(field.name for field in fields(Measured))


@dataclass(frozen=True)
class Fault:
    """Why a row cannot be trained on."""

    row: str
    kind: str
    message: str


@dataclass(frozen=True)
class Bounds:
    """Maximum length of a row, in tokens; None for no maximum."""

    max_length: int | None
    positions: int | None

    def fault(self, row: str, measured: Measured) -> Fault | None:
        """The fault of a row that is too long."""
        field, length = max(measured.lengths.items(), key=lambda each: each[1])
        for kind, bound, what in (
            ("too_long", self.max_length, "train.max_length"),
            ("too_long_for_model", self.positions, "the model's context"),
        ):
            if bound is not None and length > bound:
                where = "" if field == "prompt" else f" with its `{field}`"
                return Fault(row, kind, f"{length:,} tokens{where}, but {what} is {bound:,}")
        return None


class Checker:
    """Measures rows as a collator renders them.

    `check` raises BadRow for a row that a method cannot train on.
    """

    def __init__(self, collator: Collator, check: Any = None):
        self.collator, self._check = collator, check

    def measure(self, row: Row) -> Measured | Fault:
        """The lengths of a row, or why it cannot be rendered."""
        if not row.prompt.strip():
            return Fault(row.id, "empty_prompt", f"row {row.id}: `prompt` is empty")
        try:
            if self._check:
                self._check(row)
            prompt, answers = self.collator.measure(row)
        except BadRow as error:
            return Fault(row.id, error.kind, str(error))
        except UserError as error:  # raised when the header of an image cannot be read
            return Fault(row.id, "image_unreadable", str(error))
        for wanted, unwanted in OPPOSITE:
            if wanted in answers and answers[wanted] == answers.get(unwanted):
                return Fault(row.id, "same_answers", f"row {row.id}: {wanted} and {unwanted} have the same tokens")
        unknown = self.collator.renderer.unknown_token_id
        return Measured(
            {"prompt": prompt} | {field: prompt + len(ids) for field, ids in answers.items()},
            sum(map(len, answers.values())),
            sum(ids.count(unknown) for ids in answers.values()) if unknown is not None else 0,
        )

    def key(self, row: Row) -> str:
        """A cache key: equal for rows that measure the same; it changes when an image file is written again."""
        images = [
            [image.name, *_stamp(image.path)] if image.bytes is None else _hash(image.bytes) for image in row.images
        ]
        answers = {field: getattr(row, field) for field in self.collator.answers_of(row)}
        turns = [*map(str, row.history), *row.places, self.collator.trains_history] if row.history else [*row.places]
        return _hash(json.dumps([row.prompt, images, answers, *turns], sort_keys=True).encode())


def measured(checker: Checker, rows: Sequence[Row], name: str, report: Report | None = None) -> list[Measured | Fault]:
    """Measure every row. `name` identifies the rows.

    If several processes start with the same rows, one of them measures and the others read the
    cache.
    """
    told = f"{SCHEMA} {transformers.__version__} {checker.collator.renderer.identity} {name}"
    file = cache_folder("rows") / f"{_hash(told.encode())[:16]}.jsonl"
    keys = [checker.key(row) for row in rows]
    with _cached(file) as (known, keep):
        todo = [i for i, key in enumerate(keys) if key not in known]
        fresh: dict[int, Measured | Fault] = {}
        for i, found in zip(todo, _measure(checker, [rows[i] for i in todo]), strict=True):
            fresh[i] = found
            if isinstance(found, Measured):  # faults are not cached: the user may fix them
                keep({"key": keys[i]} | asdict(found))
            if report and len(todo) >= CHUNK and (len(fresh) % CHUNK == 0 or len(fresh) == len(todo)):
                report("rows checked", len(fresh), len(todo))
    return [fresh[i] if i in fresh else known[key] for i, key in enumerate(keys)]


def faults_of(rows: Sequence[Row], found: Sequence[Measured | Fault], bounds: Bounds) -> list[Fault]:
    """The rows that cannot be trained on."""
    faults = []
    for row, of in zip(rows, found, strict=True):
        fault = of if isinstance(of, Fault) else bounds.fault(row.id, of)
        faults += [fault] if fault else []
    return faults


def by_kind(faults: Sequence[Fault]) -> dict[str, list[Fault]]:
    """Faults grouped by kind, the most frequent kind first."""
    kinds: dict[str, list[Fault]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault)
    return dict(sorted(kinds.items(), key=lambda kind: -len(kind[1])))


def described(faults: Sequence[Fault]) -> list[str]:
    """A line for each kind of fault, which names the first rows."""
    lines = []
    for kind, of_kind in by_kind(faults).items():
        first = "; ".join(_short(fault) for fault in of_kind[:NAMED])
        more = f"; and {len(of_kind) - NAMED} more" if len(of_kind) > NAMED else ""
        count = f"{len(of_kind)} row{'s' * (len(of_kind) > 1)}"
        lines.append(f"{count} {DESCRIBED.get(kind, 'that cannot be used')}: {first}{more}")
    return lines


def refuse(faults: Sequence[Fault], of: int) -> None:
    """Raises UserError that counts all faults by kind and names the first rows of each."""
    if faults:
        lines = "".join(f"\n  - {line}" for line in described(faults))
        raise UserError(
            f"{len(faults)} of {of} training rows cannot be used:{lines}\nCorrect these rows, or drop them: on_bad_row=drop"
        )


def _short(fault: Fault) -> str:
    return fault.message if fault.row in fault.message else f"row {fault.row}: {fault.message}"


def _measure(checker: Checker, rows: Sequence[Row]) -> Iterator[Measured | Fault]:
    """Measure in this process, or in a worker per processor for many rows.

    The workers are those of a torch data loader, which end when this process ends, even if it is
    killed.
    """
    if len(rows) < MANY or usable_processors() < 2:
        yield from map(checker.measure, rows)
        return
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        _Measuring(checker, rows),  # type: ignore[arg-type]
        batch_size=CHUNK,
        num_workers=min(usable_processors(), 16),
        collate_fn=list,
        worker_init_fn=partial(begin_worker, _nothing_more),
        # A spawned process would by default spawn these workers too, and each would import
        # everything again.
        multiprocessing_context="fork" if "fork" in multiprocessing.get_all_start_methods() else None,
    )
    for batch in loader:
        yield from batch


def _nothing_more(_: int) -> None:
    """The workers have no original init function."""


@dataclass
class _Measuring:
    """Rows as a torch dataset: each row is measured when it is read."""

    checker: Checker
    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Measured | Fault:
        return self.checker.measure(self.rows[i])


@contextlib.contextmanager
def _cached(file: Path) -> Iterator[tuple[dict[str, Measured], Callable[[dict[str, Any]], None]]]:
    """(The cached lengths, a function that adds a record), locked against other processes.

    A cache that cannot be written is not used; a damaged cache is deleted.
    """
    with contextlib.ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{file}.lock"))
            records, out = _opened(file)
        except OSError:
            yield {}, lambda record: None
            return
        with out:
            yield _measured_before(records), partial(_kept, out)


def _kept(out: Any, record: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the disk is full
        append_jsonl(out, record)


def _measured_before(records: Sequence[Any]) -> dict[str, Measured]:
    """The cached lengths.

    Records in another format, for example of another version, are ignored.
    """
    found = {}
    for record in records:
        with contextlib.suppress(TypeError, KeyError, AttributeError):
            found[record["key"]] = Measured(**{name: record[name] for name in NAMES})
    return found


def _opened(file: Path) -> tuple[list[dict[str, Any]], Any]:
    try:
        return open_jsonl(file)
    except UserError:
        file.unlink()
        return open_jsonl(file)


def _stamp(path: str | None) -> tuple[Any, ...]:
    with contextlib.suppress(OSError):
        return stamp_of(Path(str(path)))
    return ()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
