"""The certificate of a constructed set: is it leak-free by the project's own measures?

R1 and R2 under judges of requests, the blind probe against the benign twins (and a benign benchmark), the share of
near-duplicates, and the twin accuracy of the untrained model. A set is called leak-free only if every measure with a
bound was measured and holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align.console import Display
from align.data.hints import Place
from align.errors import UserError
from align.evaluation.selection import select_rows
from align.evaluation.verdicts import AnyJudge
from align.report.names import percent
from align.settings import BenchmarkSettings, Certificate
from align.tools.audit.leakage import Requests, measure, sees

SCHEMA = 1
CHANCE = 0.5


@dataclass(frozen=True)
class Measure:
    """One measure, its bound, and whether it holds."""

    name: str
    value: float | None
    """None if it was not measured."""
    low: float | None
    high: float | None
    bound: str | None
    """None for a measure that is only shown."""
    holds: bool | None
    why: str | None = None
    """Why it does not hold or was not measured, or how it was found."""
    p_value: float | None = None
    """Of the probe: share of label permutations with a value as high."""


def requests_of(folder: Path, file: str) -> Requests:
    """The pairs of a constructed set: twins, or a benchmark file without safe twins. Raises UserError."""
    name = "twins" if file == "twins.jsonl" else "local"
    settings = BenchmarkSettings(path=str(folder / file))
    return Requests.of(select_rows(name, "image", settings, mixed=True, place=Place(str(folder / file))), "request")


def certificate(
    requests: Requests,
    judges: Mapping[str, AnyJudge],
    against: Requests | None,
    repeated: int,
    untrained: Mapping[str, Any] | None,
    bounds: Certificate,
    seed: int,
    folder: Path,
    display: Display,
) -> dict[str, Any]:
    """Measure a set. `repeated` is its number of near-duplicates, `untrained` the result of the
    untrained model on its twins.

    Raises UserError.
    """
    measures: list[Measure] = []
    pictured = all(row.images for row in requests.pairs)
    for judge in judges.values() if pictured else ():
        try:
            measures += _leakage(judge, measure(judge, requests, folder, display), bounds)
        finally:
            judge.release()
    if not pictured or not any(map(sees, judges.values())):
        why = "no judge of requests that sees images: give certificate.judge=" if pictured else "items have no image"
        measures += [_not_measured("R1", f">= {percent(bounds.min_r1)}", why)]
        measures += [_not_measured("R2", f"<= {percent(bounds.max_r2)}", why)]
    measures += _probes(requests, against, bounds, seed, display)
    n = sum(row.role == "harmful" for row in requests.pairs)
    bound, share = f"<= {percent(bounds.max_duplicates)}", repeated / n
    holds = share <= bounds.max_duplicates
    missed = None if holds else f"{percent(share)}% is not {bound}%"
    measures.append(Measure("near-duplicates", share, None, None, bound, holds, missed))
    measures += _twin_accuracy(untrained)
    failing = [one for one in measures if one.holds is False]
    return {
        "schema": SCHEMA,
        "items": n,
        "leak_free": not failing,
        "measures": [asdict(one) for one in measures],
        "why_not": [f"{one.name}: {one.why}" for one in failing],
        "facts": list(requests.facts),
        "fingerprint": requests.fingerprint,
    }


def _leakage(judge: AnyJudge, found: Mapping[str, Any], bounds: Certificate) -> list[Measure]:
    """R1, R2 and what the text alone shows; of safe twins, the share of pairs that are judged unsafe."""
    texts = _share(f"text alone unsafe ({judge.name})", found["text_unsafe"], most=bounds.max_r2)
    if not sees(judge):
        return [texts]
    measures = [
        _share(f"R1, pair unsafe ({judge.name})", found["R1"], least=bounds.min_r1),
        _share(f"R2, text too ({judge.name})", found["R2"], most=bounds.max_r2),
        _share(f"R1 - R2 ({judge.name})", found["gap"]),
        texts,
    ]
    if found["benign"]:
        measures.append(
            _share(f"safe twins judged unsafe ({judge.name})", found["benign"]["R1"], most=bounds.max_unsafe_twins)
        )
    return measures


def _share(
    name: str, share: Mapping[str, float] | None, most: float | None = None, least: float | None = None
) -> Measure:
    """A share with its bound: the interval's end must hold it, so that few items cannot pass by chance."""
    bound = f"<= {percent(most)}" if most is not None else f">= {percent(least)}" if least is not None else None
    if share is None:
        return _not_measured(name, bound, "withheld: over 5% of the verdicts are missing")
    value, low, high = share["value"], share["low"], share["high"]
    if bound is None:
        return Measure(name, value, low, high, None, None)
    holds = high <= most if most is not None else low >= (least or 0.0)
    why = None if holds else f"{percent(value)}% ({percent(low)}-{percent(high)}) is not {bound}%"
    return Measure(name, value, low, high, bound, holds, why)


def _not_measured(name: str, bound: str | None, why: str) -> Measure:
    return Measure(name, None, None, None, bound, False if bound else None, why)


def _probes(
    requests: Requests, against: Requests | None, bounds: Certificate, seed: int, display: Display
) -> list[Measure]:
    """The AUC of the blind probe: chance must be within its interval."""
    bound = "interval holds 50"
    name = "probe's AUC against the safe twins"
    measures = []
    if {row.role for row in requests.pairs} == {"harmful", "benign"}:
        if _texts_shared(requests):
            why = "by construction: both twins have the same text"
            measures.append(Measure(name, CHANCE, CHANCE, CHANCE, bound, True, why))
        else:
            measures.append(_probed(name, [requests], bounds, seed, bound, display))
    if against is not None:
        sets = [only(requests, "harmful"), only(against, "benign")]
        measures.append(_probed(f"probe's AUC against {against.chosen.name}", sets, bounds, seed, bound, display))
    if not measures:
        why = "no safe twins: give certificate.against=<a benign benchmark>"
        measures.append(_not_measured("probe's AUC", bound, why))
    return measures


def _texts_shared(requests: Requests) -> bool:
    """Whether the two halves of every twin have the same text: then no text can show which half it is."""
    texts: dict[str | None, set[str]] = {}
    for row in requests.pairs:
        texts.setdefault(row.twin, set()).add(row.prompt)
    return None not in texts and all(len(of_twin) == 1 for of_twin in texts.values())


def _probed(
    name: str, sets: Sequence[Requests], bounds: Certificate, seed: int, bound: str, display: Display
) -> Measure:
    from align.tools.audit.probe import probe_requests  # scikit-learn imports slowly

    try:
        found = probe_requests(sets, bounds.folds, bounds.permutations, seed, name, display)["auc"]
    except UserError as error:  # too few independent texts
        return _not_measured(name, bound, str(error))
    low = found["value"] if found["low"] is None else found["low"]
    high = found["value"] if found["high"] is None else found["high"]
    holds = low <= CHANCE <= high
    p = found["permuted"]["p_value"]
    why = (
        None
        if holds
        else f"{percent(found['value'])}% ({percent(low)}-{percent(high)}): the texts show which are harmful"
    )
    return Measure(name, found["value"], low, high, bound, holds, why, p)


def only(requests: Requests, role: str) -> Requests:
    """The requests of one role."""
    return Requests(
        requests.chosen,
        requests.text,
        [row for row in requests.pairs if row.role == role],
        requests.clusters,
        requests.hashes,
        requests.fingerprint,
        requests.facts,
    )


def _twin_accuracy(untrained: Mapping[str, Any] | None) -> list[Measure]:
    """Shown without a bound: an untrained model answers both twins, so a low value is what training has to change."""
    if untrained is None or untrained.get("rate") is None:
        return []
    return [
        Measure("twin accuracy before training", untrained["rate"], untrained["low"], untrained["high"], None, None)
    ]
