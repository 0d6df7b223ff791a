"""Certify a constructed set (part of `align construct`): gather what the certificate measures, and print it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from align.config.compose import compose_model
from align.console import Display, Named
from align.construction.duplicates import repeats
from align.construction.output import BENCHMARK, TWINS
from align.data.hints import Place
from align.data.reading import at_root
from align.errors import UserError
from align.evaluation.judges.build import request_judges
from align.evaluation.selection import select_rows
from align.files import write_json
from align.report.funnel import CERTIFICATE
from align.report.names import percent
from align.settings import Answering, BenchmarkSettings, ConstructConfig, EvalConfig
from align.tools.audit.certificate import certificate, only, requests_of
from align.tools.audit.leakage import Requests

FEWEST = 100
"""Permutations, for a p-value."""


def certify(config: ConstructConfig, folder: Path, display: Display) -> dict[str, Any]:
    """Measure the set in a folder, and write certificate.json. Raises UserError."""
    bounds = config.certificate
    judges = request_judges(bounds.judge, "certificate.judge")
    file = TWINS if (folder / TWINS).is_file() else BENCHMARK
    requests = requests_of(folder, file)
    repeated = len(repeats(only(requests, "harmful").pairs, config.image_distance))
    untrained = _untrained(config, folder, requests.fingerprint[:8], display) if file == TWINS else None
    found = certificate(
        requests,
        judges,
        benign_set(config),
        repeated,
        untrained,
        bounds,
        config.seed,
        folder / "certificate",
        display,
    )
    write_json(folder / CERTIFICATE, found)
    return found


def check_certificate(config: ConstructConfig) -> None:
    """Raise UserError for settings of the certificate that cannot be used, before hours of construction."""
    bounds = config.certificate
    if bounds.folds < 2 or bounds.permutations < FEWEST:
        raise UserError(
            f"certificate.folds={bounds.folds}, certificate.permutations={bounds.permutations}: expected at least 2 "
            f"and {FEWEST}"
        )
    request_judges(bounds.judge, "certificate.judge")
    benign_set(config)
    if bounds.model is not None:
        compose_model(bounds.model)


def benign_set(config: ConstructConfig) -> Requests | None:
    """The benign benchmark of certificate.against."""
    name = config.certificate.against
    if name is None:
        return None
    settings = config.certificate.settings.get(name, BenchmarkSettings())
    place = Place(f"certificate.settings.{name}")
    chosen = select_rows(name, "image", at_root(settings, config.data_root, name), mixed=True, place=place)
    if not any(row.role == "benign" for row in chosen.items):
        raise UserError(f"certificate.against={name}: no row is benign; name a benchmark with benign requests")
    return Requests.of(chosen, "request")


def _untrained(config: ConstructConfig, folder: Path, fingerprint: str, display: Display) -> dict[str, Any] | None:
    """The untrained model's result on the twins; None without certificate.model."""
    from align.commands.evaluate import run_evaluation

    bounds = config.certificate
    if bounds.model is None:
        return None
    evaluation = EvalConfig(
        benchmark=["twins"],
        settings={"twins": BenchmarkSettings(path=str(folder / TWINS))},
        judge=bounds.twin_judge,
        model=compose_model(bounds.model),
        generation=Answering(max_new_tokens=bounds.max_new_tokens, batch_size=100),
        output_dir=str(folder / "certificate" / f"untrained-{fingerprint}"),
    )
    _, results = run_evaluation(evaluation, Named(display, "untrained model:"))
    return results["twins"]


def print_certificate(found: dict[str, Any]) -> None:
    """Print a line per measure, and the verdict."""
    table = Table(title=f"Certificate of {found['items']:,} items", title_justify="left")
    table.add_column("measure")
    for column in ("value %", "95% interval", "bound %"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("holds")
    for one in found["measures"]:
        value = "-" if one["value"] is None else percent(one["value"])
        spread = "-" if one["low"] is None else f"{percent(one['low'])}-{percent(one['high'])}"
        holds = {True: "yes", False: "no", None: "-"}[one["holds"]]
        table.add_row(one["name"], value, spread, one["bound"] or "-", holds)
    console = Console()
    console.print(table)
    for line in verdict(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def verdict(found: dict[str, Any]) -> list[str]:
    """Whether the set may be called leak-free, and why not."""
    if found["leak_free"]:
        return ["Leak-free by these measures: every bound holds."]
    return ["Not leak-free by these measures:", *(f"  {why}" for why in found["why_not"])]
