"""Responses -> verdicts: stored, cached, or requested from the judge; each is written at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from align.console import Display, shortened
from align.evaluation.coherence import incoherent
from align.evaluation.judges.cache import VerdictCache
from align.evaluation.judges.model_judge import AskedJudge
from align.evaluation.verdicts import AnyJudge, Case, Verdict, identity_of
from align.files import append_jsonl, keep_lines, open_jsonl

NOT_KEPT = ("asked", "help")


def judge_answers(
    judge: AnyJudge,
    cases: Sequence[Case],
    settled: Mapping[str, Verdict],
    path: Path,
    what: str,
    display: Display,
) -> dict[str, Verdict]:
    """{row id: verdict}; `path` is the file of verdicts. Raises UserError if a limit is reached.

    `settled` are verdicts on rows without a response, which no judge gets.
    """
    asks = isinstance(judge, AskedJudge)
    display = display if asks else Display()  # other judges are too fast for a display
    identity, keys = identity_of(judge), {case.row.id: _key(judge, case) for case in cases}
    responses = {case.row.id: case.response for case in cases}
    kept, file = open_jsonl(path)
    with file:
        stored = _stored(kept, identity, keys)
        verdicts = {
            key: _seen(verdict, responses[key], judge)
            for key, verdict in stored.items()
            if key not in settled and _stands(verdict, judge)
        }
        display(what, len(verdicts), len(cases))
        waiting = [case for case in cases if case.row.id not in verdicts]
        waiting.sort(key=lambda case: case.row.id in stored)  # rows with an invalid verdict come last
        trouble = _Trouble(what, display)
        for row_id, verdict in _found(judge, waiting, settled, keys, identity, what, display):
            verdicts[row_id] = verdict if row_id in settled else _seen(verdict, responses[row_id], judge)
            if verdict.asked:
                append_jsonl(file, _record(row_id, keys[row_id], responses[row_id], verdicts[row_id], identity))
            if row_id not in settled:
                trouble.note(row_id, verdict)
            display(what, len(verdicts), len(cases), judge.usage() if isinstance(judge, AskedJudge) else "")
        trouble.end()
    # Verdicts of another judge of that name (another model, for example) stay.
    lines = [record for record in kept if not _of(record, identity)]
    lines += [
        _record(row_id, key, responses[row_id], verdicts[row_id], identity)
        for row_id, key in keys.items()
        if verdicts[row_id].asked
    ]
    keep_lines(path, lines)
    return {row_id: verdicts[row_id] for row_id in keys}


class _Trouble:
    """Report why verdicts are missing: the first of each reason, then the number not asked."""

    def __init__(self, what: str, display: Display):
        self._what, self._display = what, display
        self._told, self._left = set[str](), 0

    def note(self, row_id: str, verdict: Verdict) -> None:
        """Note a verdict, and report it if it is the first invalid one of its reason."""
        self._left += not verdict.asked
        if verdict.verdict != "invalid" or str(verdict.reason) in self._told or not verdict.asked:
            return
        self._told.add(str(verdict.reason))
        wrote = f"; the reply was {shortened(verdict.raw)}" if verdict.raw else ""
        help = f"; {verdict.help}" if verdict.help else ""
        self._display.say(
            f"{self._what}: the verdict on {row_id} is invalid ({verdict.reason}): {verdict.detail}{wrote}{help}"
        )

    def end(self) -> None:
        """Report how many responses were not judged."""
        if self._left:
            self._display.say(
                f"{self._what}: the judge failed too often; {self._left} responses are not judged. To judge them, give "
                "the same command."
            )


def _key(judge: AnyJudge, case: Case) -> str:
    """Key of a stored verdict: equal only for equal requests to the judge."""
    return judge.key(case) if isinstance(judge, AskedJudge) else case.digest()


def _seen(verdict: Verdict, response: str | None, judge: AnyJudge) -> Verdict:
    """The verdict with `incoherent` computed again, which needs no judge; not for requests.

    A judge that is a function may set `incoherent` itself. A model does not, even if an earlier
    version stored it.
    """
    says = verdict.incoherent and not isinstance(judge, AskedJudge)
    return replace(verdict, incoherent=says or (response is not None and incoherent(response) is not None))


def _stored(records: Iterable[dict[str, Any]], identity: dict[str, Any], keys: Mapping[str, str]) -> dict[str, Verdict]:
    """{row id: stored verdict on the present response}."""
    found = {}
    for record in records:
        row_id = str(record.get("id"))
        if keys.get(row_id) and record.get("key") == keys[row_id] and _of(record, identity):
            found[row_id] = _verdict(record)
    return found


def _stands(verdict: Verdict, judge: AnyJudge) -> bool:
    """Whether a stored verdict is kept: it is valid, or the judge declined permanently."""
    if not isinstance(judge, AskedJudge):  # a function is fast, and the check for incoherence may have changed
        return verdict.verdict != "invalid" and not verdict.incoherent
    return verdict.verdict != "invalid" or (verdict.reason == "declined" and not verdict.again and not judge.again)


def _of(record: dict[str, Any], identity: dict[str, Any]) -> bool:
    return all(record.get(key) == value for key, value in identity.items())


def _found(
    judge: AnyJudge,
    cases: Sequence[Case],
    settled: Mapping[str, Verdict],
    keys: Mapping[str, str],
    identity: dict[str, Any],
    what: str,
    display: Display,
) -> Iterator[tuple[str, Verdict]]:
    """Yield verdicts: settled ones, cached ones (model judges only), then the judge's."""
    answered = [case for case in cases if case.row.id not in settled]
    yield from ((case.row.id, settled[case.row.id]) for case in cases if case.row.id in settled)
    if not isinstance(judge, AskedJudge):
        yield from judge.verdicts(answered)
        return
    cache = VerdictCache(identity)
    known = cache.read(display)
    there = [case for case in answered if keys[case.row.id] in known]
    for case in there:
        yield case.row.id, _verdict(known[keys[case.row.id]])
    # Equal requests for several rows (one sentence without its images) are made once.
    missing: dict[str, list[Case]] = {}
    for case in answered:
        if keys[case.row.id] not in known:
            missing.setdefault(keys[case.row.id] or case.row.id, []).append(case)
    if not missing:  # and load no model
        return
    asked = [alike[0] for alike in missing.values()]
    judge.announce(asked, f"{what}: {len(there)} cached, {len(asked)} to request", display)
    for row_id, verdict in judge.verdicts(asked):
        if keys[row_id] and verdict.verdict != "invalid":
            cache.add(keys[row_id], {key: value for key, value in _fields(verdict).items() if key != "incoherent"})
        for case in missing[keys[row_id] or row_id]:
            yield case.row.id, verdict


def _fields(verdict: Verdict) -> dict[str, Any]:
    return {key: value for key, value in asdict(verdict).items() if key not in NOT_KEPT}


def _verdict(record: Mapping[str, Any]) -> Verdict:
    return Verdict(**{field.name: record[field.name] for field in fields(Verdict) if field.name in record})


def _record(row_id: str, key: str, response: str | None, verdict: Verdict, identity: dict[str, Any]) -> dict[str, Any]:
    of_response = None
    if response is not None:
        of_response = hashlib.sha256(response.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return {"id": row_id, "key": key, "response_hash": of_response, **_fields(verdict), **identity}
