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
    """Why it does not hold, or was not measured."""


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
    """Measure a set. `repeated` is its number of near-duplicates, `untrained` the result of the untrained model on its twins.

    Raises UserError.
    """
    measures = []
    for judge in judges.values():
        try:
            measures += _leakage(judge, measure(judge, requests, folder, display), bounds)
        finally:
            judge.release()
    if not judges:
        measures.append(
            _not_measured("R2", f"<= {percent(bounds.max_r2)}", "no judge of requests: give certificate.judge=")
        )
    measures += _probes(requests, against, bounds, seed, display)
    n = sum(row.role == "harmful" for row in requests.pairs)
    share = repeated / n
    bound = f"<= {percent(bounds.max_duplicates)}"
    measures.append(_bounded("near-duplicates", share, None, None, bound, share <= bounds.max_duplicates))
    measures += _twin_accuracy(untrained)
    missed = [one for one in measures if one.holds is False]
    return {
        "schema": SCHEMA,
        "items": n,
        "leak_free": not missed,
        "measures": [asdict(one) for one in measures],
        "why_not": [f"{one.name}: {one.why}" for one in missed],
        "facts": list(requests.facts),
        "fingerprint": requests.fingerprint,
    }


def _leakage(judge: AnyJudge, found: Mapping[str, Any], bounds: Certificate) -> list[Measure]:
    most, least = f"<= {percent(bounds.max_r2)}", f">= {percent(bounds.min_r1)}"
    if not sees(judge):
        return [_share(f"text alone unsafe ({judge.name})", found["text_unsafe"], most, lambda v: v <= bounds.max_r2)]
    return [
        _share(f"R1, pair unsafe ({judge.name})", found["R1"], least, lambda v: v >= bounds.min_r1),
        _share(f"R2, text too ({judge.name})", found["R2"], most, lambda v: v <= bounds.max_r2),
        _share(f"R1 - R2 ({judge.name})", found["gap"], None, None),
    ]


def _share(name: str, share: Mapping[str, float] | None, bound: str | None, holds: Any) -> Measure:
    if share is None:
        return _not_measured(name, bound, "withheld: over 5% of the verdicts are missing")
    value = share["value"]
    if bound is None:
        return Measure(name, value, share["low"], share["high"], None, None)
    return _bounded(name, value, share["low"], share["high"], bound, holds(value))


def _bounded(name: str, value: float, low: float | None, high: float | None, bound: str, holds: bool) -> Measure:
    return Measure(name, value, low, high, bound, holds, None if holds else f"{percent(value)}% is not {bound}%")


def _not_measured(name: str, bound: str | None, why: str) -> Measure:
    return Measure(name, None, None, None, bound, False if bound else None, why)


def _probes(
    requests: Requests, against: Requests | None, bounds: Certificate, seed: int, display: Display
) -> list[Measure]:
    """The AUC of the blind probe: chance must be within its interval."""
    from align.tools.audit.probe import probe_requests  # scikit-learn imports slowly

    pairs: list[tuple[str, Sequence[Requests]]] = []
    if {row.role for row in requests.pairs} == {"harmful", "benign"}:
        pairs.append(("probe's AUC against the safe twins", [requests]))
    if against is not None:
        harmful, benign = only(requests, "harmful"), only(against, "benign")
        pairs.append((f"probe's AUC against {against.chosen.name}", [harmful, benign]))
    bound = "interval holds 50"
    if not pairs:
        return [_not_measured("probe's AUC", bound, "no safe twins: give certificate.against=<a benign benchmark>")]
    measures = []
    for name, sets in pairs:
        found = probe_requests(sets, bounds.folds, bounds.permutations, seed, name, display)["auc"]
        low = found["value"] if found["low"] is None else found["low"]
        high = found["value"] if found["high"] is None else found["high"]
        holds = low <= CHANCE <= high
        why = (
            None
            if holds
            else f"{percent(found['value'])}% ({percent(low)}-{percent(high)}): the texts tell harmful from benign"
        )
        measures.append(Measure(name, found["value"], low, high, bound, holds, why))
    return measures


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
