"""Generated responses for training rows without one: generated once and cached by the model's input.

The cache has one file per model and generation settings; other runs, recipes, seeds or views with the
same input reuse the response.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from align.answering import endpoint
from align.answering.answer import DRAWN, Answer, Unanswered, how, parted_together, record_of
from align.answering.model import Model
from align.console import Report, progress
from align.data.answers import Ask
from align.data.pixels import pixels_of
from align.errors import UserError
from align.files import append_jsonl, cache_folder, open_jsonl, read_jsonl
from align.rows import Row
from align.settings import Answering, RunConfig

LOG = logging.getLogger(__name__)

SCHEMA = 1
NOT_YET = "(an answer that is not generated yet)"
Records = dict[str, dict[str, Any]]
"""{hash of the model's input: record of the file}"""


def asking(config: RunConfig, report: Report | None = None) -> Ask:
    """Read responses from the cache, and generate absent ones with the model of `generation`. Raises UserError."""
    endpoint.check_settings(config.generation)

    def ask(rows: Sequence[Row]) -> tuple[list[str], str]:
        model = _model(config)
        keys, file = _keys(model, rows), _file(model, config.generation)
        found = _read(file, model)
        if not found.keys() >= set(keys):
            try:
                with _alone(file):
                    found = _generate(model, dict(zip(keys, rows, strict=True)), file, report)
            finally:
                model.release()  # the trainer loads its own model next and needs this device memory
        return [found[key]["response"] for key in keys], _whose(model, keys, found, config.generation)

    return ask


def foreseen(config: RunConfig) -> Ask:
    """Read responses from the cache, with the placeholder NOT_YET for absent ones; no model is
    asked. Raises UserError.
    """
    endpoint.check_settings(config.generation)

    def ask(rows: Sequence[Row]) -> tuple[list[str], str]:
        model = _model(config)
        keys, found = _keys(model, rows), _read(_file(model, config.generation), model)
        missing = len(set(keys) - found.keys())
        whose = _whose(model, keys, found, config.generation)
        responses = [found[key]["response"] if key in found else NOT_YET for key in keys]
        if missing:
            whose += f"; {missing} responses are not generated yet: the run would generate them{model.place}"
        return responses, whose

    return ask


def _model(config: RunConfig) -> Model:
    if config.generation.base_url:
        return endpoint.Endpoint(config.generation)
    from align.answering.engines import base_model  # importing transformers is slow

    return base_model(config.model, config.generation)


def _keys(model: Model, rows: Sequence[Row]) -> list[str]:
    """For each row, a hash of the model's input: prompt and decoded pixels."""
    return [_hash(model.prompt(row), *shown)[:32] for row, shown in zip(rows, pixels_of(rows), strict=True)]


def _file(model: Model, generation: Answering) -> Path:
    identity = model.identity | how(generation) | {"schema": SCHEMA}
    return cache_folder("answers") / f"{_hash(json.dumps(identity, sort_keys=True))[:16]}.jsonl"


def _read(file: Path, model: Model) -> Records:
    return _finished(read_jsonl(file, growing=True), model) if file.is_file() else {}


def _finished(records: Iterable[dict[str, Any]], model: Model) -> Records:
    """The records with a response, without their thoughts; a thought without a response cannot be trained on."""
    found = parted_together({record["key"]: record for record in records}, model.marks)
    return {key: record for key, record in found.items() if record["response"]}


def _generate(model: Model, rows: dict[str, Row], file: Path, report: Report | None) -> Records:
    """Generate the file's absent records, and write each to disk immediately; `rows` has the hash
    of each row's input as key.
    """
    kept, out = open_jsonl(file)
    found = _finished(kept, model)
    missing = {row.id: key for key, row in rows.items() if key not in found}
    unanswered: list[Unanswered] = []
    if not missing:  # another process stored them meanwhile
        out.close()
        return found
    with out, contextlib.nullcontext(report) if report else progress() as show:
        what, stored = f"responses of {model.name}{model.place}", 0
        show(what, stored, len(missing))
        for answer in model.answers([rows[key] for key in missing.values()]):
            if isinstance(answer, Unanswered):
                unanswered.append(answer)
                continue
            record = record_of(answer, model.marks)
            if not record["response"]:
                unanswered.append(_nothing(answer, record))
                continue
            key = missing[answer.id]
            of_answer = {name: value for name, value in record.items() if name not in ("id", "seconds")}
            found[key] = {"schema": SCHEMA, "key": key, "row": answer.id} | of_answer
            append_jsonl(out, found[key])
            stored += 1
            show(what, stored, len(missing))
    if lack := [row_id for row_id, key in missing.items() if key not in found]:
        _refuse(model, lack, unanswered, len(missing), file)
    return found


def _nothing(answer: Answer, record: dict[str, Any]) -> Unanswered:
    """The reason why a record cannot be trained on."""
    if why := record.get("unfinished"):
        room = "; give a higher generation.max_new_tokens=" if answer.finish_reason == "length" else ""
        return Unanswered(answer.id, f"the model wrote a thought and no response: {why}{room}")
    return Unanswered(answer.id, "the response is empty, so no token would be supervised")


def _refuse(model: Model, lack: Sequence[str], unanswered: Sequence[Unanswered], asked: int, file: Path) -> None:
    first, left = unanswered[0], sum(not one.asked for one in unanswered)
    not_asked = f" {left} of them were not sent any more." if left else ""
    raise UserError(
        f"{len(lack)} of {asked} rows got no response from {model.name}{model.place}: "
        f"{', '.join(lack[:5])}{', ...' if len(lack) > 5 else ''}.{not_asked} Row {first.id}: {first.told}. The other "
        f"{asked - len(lack)} responses are stored in {file}. Run the same command to continue; if a row never gets a "
        "response, add one to its source, or remove the row"
    )


def _whose(model: Model, keys: Sequence[str], found: Records, generation: Answering) -> str:
    cut = sum(found[key]["finish_reason"] == "length" for key in keys if key in found)
    drawn = {key: value for key, value in how(generation).items() if key in DRAWN}
    way = f"drawn with {', '.join(f'{key}={value}' for key, value in drawn.items())}" if drawn else "greedy"
    whose = f"generated by {model.name}, {way}, at most {generation.max_new_tokens} new tokens"
    whose += f", thinking {thinking}" if (thinking := how(generation).get("thinking")) else ""
    return f"{whose}; {cut} responses were truncated there" if cut else whose


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold a lock: one process generates; the others wait, and then read its records.

    A lock is used instead of a rank, because no process group exists when data are read, separate runs may
    use the same model, and the system releases the lock of a killed process.
    """
    lock = FileLock(f"{file}.lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        LOG.info(f"Another process is generating the responses of {file}; this process waits for them")
        lock.acquire(poll_interval=0.2)
    except OSError as error:
        raise UserError(
            f"{file}: responses cannot be stored there ({error}); set XDG_CACHE_HOME to a writable folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
