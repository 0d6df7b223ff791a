"""`align leakage`: measure how much of a benchmark's harm is visible in its text alone.

Measured by judges of requests and by a classifier of texts (the probe).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from align.answering.budget import Budget
from align.config.compose import compose
from align.config.registry import GROUPS, REQUEST_JUDGES, benchmark_names
from align.console import Display, progress
from align.errors import UserError
from align.evaluation.judges.build import request_judges
from align.evaluation.judges.model_judge import AskedJudge
from align.evaluation.selection import place_of, select_rows, settings_of
from align.evaluation.verdicts import AnyJudge
from align.files import write_json
from align.report.names import percent
from align.rows import split_view
from align.settings import LeakageConfig
from align.tools.audit.leakage import Requests, measure, sees

Results = dict[str, list[dict[str, Any]]]
"""{judge: its result on each benchmark}"""


def main(arguments: Sequence[str]) -> int:
    """Judge and probe the benchmarks, and print the tables. Raises UserError.

    Returns 1 where a share is withheld, 130 where the user interrupts.
    """
    config: LeakageConfig = compose(LeakageConfig, arguments).config
    judges = request_judges(config.judge)
    sets, against = _sets(config, judges)
    probed = _probed(config, sets, against)
    if not judges and not probed:
        raise UserError(
            f"judge= is missing. Give judge=<names> ({', '.join(REQUEST_JUDGES)}); or, for the probe alone, against=<a "
            "benchmark with benign rows>"
        )
    if config.dry_run:
        for line in _forecast(judges, sets, probed):
            print(line)
        return 0
    folder = Path(config.output_dir)
    try:
        with progress() as display:
            found = {name: _measured(judge, sets, folder, display) for name, judge in judges.items()}
            probes = [_probe(config, name, sets[name], against, folder, display) for name in probed]
    except KeyboardInterrupt:
        print("Interrupted. Every verdict so far is stored. To resume, give the same command:")
        print(f"  {shlex.join(['align', 'leakage', *arguments])}")
        return 130
    show(found, probes)
    if config.probe is None and not probed:
        print(
            "No probe: it separates harmful from benign texts, and no benchmark has both. Give against=<a benchmark "
            "with benign rows>"
        )
    print(f"Details: {folder}")
    results = [result for of_judge in found.values() for result in of_judge]
    return 1 if any(one["withheld"] for result in results for one in _parts(result)) else 0


def _sets(config: LeakageConfig, judges: dict[str, AnyJudge]) -> tuple[dict[str, Requests], Requests | None]:
    """-> (benchmarks by name, the benchmark of against=). Read before any judge is called."""
    if not config.benchmark:
        raise UserError("benchmark= is missing. Give benchmark=<names>")
    config.benchmark = benchmark_names(config.benchmark)
    if config.against in GROUPS:
        raise UserError(f"against={config.against} is a group. Name one benchmark: {', '.join(GROUPS[config.against])}")
    for name in [*config.benchmark, *([config.against] if config.against else [])]:
        if split_view(name)[1] is not None:
            raise UserError(
                f"benchmark={name} names a view, but leakage is measured on a whole benchmark with its images. "
                "Give the benchmark's name alone."
            )
    if config.against and config.probe is False:
        raise UserError(f"against={config.against} is for the probe, but probe=false. Remove one of the two.")
    if config.against in config.benchmark:
        raise UserError(
            f"against={config.against} is also in benchmark=, but the probe compares two benchmarks. Name another one."
        )
    # Judges with vision need images; so does the probe, which keeps all texts about one image in
    # one fold.
    view = "image" if config.probe is not False or any(map(sees, judges.values())) else "text"

    def read(name: str) -> Requests:
        return Requests.of(
            select_rows(name, view, settings_of(config, name), mixed=True, place=place_of(config, name)), config.text
        )

    sets = {name: read(name) for name in dict.fromkeys(config.benchmark)}
    for requests in sets.values():
        for judge in judges.values():
            requests.cases(judge)
    return sets, read(config.against) if config.against else None


def _probed(config: LeakageConfig, sets: dict[str, Requests], against: Requests | None) -> list[str]:
    """Benchmarks to probe: as given by probe=, else those with harmful and benign rows."""
    if config.probe is not None:
        return list(sets) if config.probe else []
    return [name for name, of in sets.items() if against or _has_both(of)]


def _has_both(requests: Requests) -> bool:
    return len({row.role for row in requests.pairs}) > 1


def _forecast(judges: dict[str, AnyJudge], sets: dict[str, Requests], probed: list[str]) -> Iterator[str]:
    for name, requests in sets.items():
        yield f"{name}: {len(requests.pairs)} rows" + ("; the probe makes no requests" if name in probed else "")
        for judge in judges.values():
            if isinstance(judge, AskedJudge) and judge.address is not None:
                cases = [case for of_arm in requests.cases(judge).values() for case in of_arm]
                distinct = list({judge.key(case) or case.row.id: case for case in cases}.values())
                told = Budget(judge.address, "judge").forecast(list(judge.requests(distinct)))
                yield f"{name}: at most {len(distinct)} verdicts of {judge.name}, {judge.settings['model']}; {told}"


def _measured(judge: AnyJudge, sets: dict[str, Requests], folder: Path, display: Display) -> list[dict[str, Any]]:
    """Run one judge at a time over all benchmarks: it may be a large model."""
    try:
        return [measure(judge, requests, folder / name, display) for name, requests in sets.items()]
    finally:
        judge.release()


def _probe(
    config: LeakageConfig, name: str, requests: Requests, against: Requests | None, folder: Path, display: Display
) -> dict[str, Any]:
    from align.tools.audit.probe import probe_requests  # scikit-learn imports slowly

    # A benchmark with both roles is probed alone: benign rows of another source would confound it.
    other = None if _has_both(requests) else against
    both = [requests, *([other] if other else [])]
    what = f"{name} against {config.against}" if other else name
    found = probe_requests(both, config.folds, config.permutations, config.seed, what, display)
    told = {"fingerprint": [one.fingerprint for one in both]}
    result = (
        {"schema": found["schema"], "set": name, "against": config.against if other else None, "text": config.text}
        | found
        | told
    )
    write_json(folder / name / "probe.json", result)
    return result


def show(found: Results, probes: Sequence[dict[str, Any]]) -> None:
    """Print the tables on the terminal."""
    console = Console()
    for results in found.values():
        first = results[0]
        table = Table(
            show_lines=True, title=f"Leakage by {first['judge']} {first['judge_version']}; text={first['text']}"
        )
        table.title_justify = "left"
        table.add_column("benchmark", no_wrap=True)
        for column in ("R1 %\npair unsafe", "R2 %\ntext too", "R1 - R2\nimage only", "text alone\nunsafe %", "n"):
            table.add_column(column, justify="right")
        for result in results:
            for part in _parts(result):
                cells = [_share(part, key) for key in ("R1", "R2", "gap", "text_unsafe")]
                if part["n_text"] != part["n_valid"]:
                    cells[-1] += f"\nn={part['n_text']}"
                table.add_row(f"{result['set']}\n{result['kind']}\n{part['role']} rows", *cells, _n(part))
        console.print(table)
        for fact in dict.fromkeys(fact for result in results for fact in result["facts"]):
            console.print(fact, highlight=False, markup=False, soft_wrap=True)
    if found:
        console.print(
            "95% intervals (Wilson, or a bootstrap over images where images repeat) over rows with a verdict on both "
            "pair and text; 'text alone' is over rows with a verdict on the text. An unsafe verdict on a benign row "
            "is a false alarm.",
            highlight=False,
            soft_wrap=True,
        )
    if probes:
        console.print(_probe_table(probes))
        console.print(
            "Out-of-fold values, with a 95% interval over groups of texts. permuted, 95th: mean and 95th percentile "
            "with permuted labels; p: share of permutations with a value as high.",
            highlight=False,
            soft_wrap=True,
        )
        for result in probes:
            for fact in result["facts"]:
                console.print(f"{_probe_name(result)}: {fact}", highlight=False, markup=False, soft_wrap=True)


def _parts(result: dict[str, Any]) -> list[dict[str, Any]]:
    """A result, and the result on benign rows if the benchmark also has harmful rows."""
    return [result] + ([{"role": "benign"} | result["benign"]] if result["benign"] else [])


def _share(part: dict[str, Any], key: str) -> str:
    share = part[key]
    if share is None:
        return "withheld" if part["withheld"] else "-"
    return f"{percent(share['value'])}\n{percent(share['low'])}-{percent(share['high'])}"


def _n(part: dict[str, Any]) -> str:
    if part["n_valid"] == part["n"]:
        return str(part["n"])
    reasons = [f"{arm}: {why} {n}" for arm, of in part["invalid_reasons"].items() for why, n in of.items()]
    return "\n".join([f"{part['n_valid']} of {part['n']}", *reasons])


def _probe_name(result: dict[str, Any]) -> str:
    return f"{result['set']} against {result['against']}" if result["against"] else result["set"]


def _probe_table(probes: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Probe: harmful or benign from the text alone", title_justify="left", show_lines=True)
    table.add_column("benchmark", no_wrap=True)
    for column in ("balanced accuracy %", "AUC %", "harmful + benign\n(groups)"):
        table.add_column(column, justify="right")
    for result in probes:
        cells = [_probed_cell(result[key]) for key in ("balanced_accuracy", "auc")]
        n = f"{result['harmful']} + {result['benign']}\n({result['groups']})"
        table.add_row(_probe_name(result).replace(" against ", "\nagainst "), *cells, n)
    return table


def _probed_cell(one: dict[str, Any]) -> str:
    spread = [] if one["low"] is None else [f"{percent(one['low'])}-{percent(one['high'])}"]
    chance = one["permuted"]
    by_chance = [f"permuted {percent(chance['mean'])}", f"95th {percent(chance['q95'])}", f"p {chance['p_value']:.3f}"]
    return "\n".join([percent(one["value"]), *spread, *by_chance])
