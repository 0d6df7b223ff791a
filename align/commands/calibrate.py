"""`align calibrate`: measure how far a judge agrees with people on labelled items."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from align.config.compose import compose
from align.console import progress
from align.data.local import read_file
from align.data.reading import tell_unread_images
from align.errors import UserError
from align.evaluation.benchmark import limited
from align.evaluation.judges.build import NONE, build_all, refuse_foreign
from align.evaluation.judges.model_judge import AskedJudge
from align.evaluation.judges.run import judge_answers
from align.evaluation.judges.thoughts import refuse_thoughts
from align.evaluation.selection import narrowing
from align.files import write_json
from align.report.names import percent
from align.settings import BenchmarkSettings, CalibrateConfig, Part
from align.tools.audit.calibration import Labelled, calibrate, cases_of, kind_of_items, labelled


def main(arguments: Sequence[str]) -> int:
    """Judge the items and print how far each judge agrees with people. Raises UserError.

    Returns 1 where verdicts are missing.
    """
    config: CalibrateConfig = compose(CalibrateConfig, arguments).config
    if not config.judge.name:
        raise UserError("judge= is missing. Give judge=<names>, for example judge=refusal_match,vlsbench")
    if NONE in config.judge.name:
        raise UserError("judge=none: there would be no verdicts to compare with people. Name a judge.")
    refuse_thoughts(config.judge.sees_thoughts, "judge", "people labelled responses, whose thoughts are left out")
    judges = build_all(config.judge.name, config.judge)
    items = _items(config, any(isinstance(judge, AskedJudge) and judge.sees_image for judge in judges.values()))
    for judge in judges.values():
        judge.labels(kind_of_items(items))
        refuse_foreign(judge, [item.row for item in items], str(config.path))
    folder = Path(config.output_dir or Path("runs", "calibration", Path(str(config.path)).stem))
    cases, settled = cases_of(items)
    found = []
    with progress() as display:
        for judge in judges.values():
            path = folder / f"verdicts.{judge.name}.jsonl"
            verdicts = judge_answers(judge, cases, settled, path, f"verdicts of {judge.name}", display)
            judge.release()
            of_file = {"path": str(config.path), "fingerprint": _fingerprint(config)}
            found.append(of_file | {"selection": narrowing(_limits(config))} | calibrate(judge, items, verdicts))
            write_json(folder / f"calibration.{judge.name}.json", found[-1])
    for result in found:
        show(result)
    print(f"Details: {folder}")
    return 1 if any(result["invalid_reasons"] for result in found) else 0


def _items(config: CalibrateConfig, with_images: bool) -> list[Labelled]:
    read = read_file(
        "align calibrate",
        Part(
            path=config.path,
            image_root=config.image_root,
            follow_links=config.follow_links,
            columns=config.columns,
        ),
        config.role,
    )
    tell_unread_images("align calibrate", read, with_images)
    items = labelled(read.rows, str(config.path))
    people = {item.row.id: item.majority for item in items}
    kept = limited("align calibrate", read.rows, _limits(config), first=lambda row: people[row.id])
    drawn = {row.id for row in kept}
    return [item for item in items if item.row.id in drawn]


def _limits(config: CalibrateConfig) -> BenchmarkSettings:
    return BenchmarkSettings(limit=config.limit, limit_order=config.limit_order, limit_seed=config.limit_seed)


def _fingerprint(config: CalibrateConfig) -> str:
    return hashlib.sha256(Path(str(config.path)).read_bytes()).hexdigest()[:16]


def show(result: dict[str, Any]) -> None:
    """Print one judge's agreement with people as tables on the terminal."""
    console = Console()
    invalid = ", ".join(f"{reason} {count}" for reason, count in result["invalid_reasons"].items())
    left_out = [f"{result['without_majority']} without a majority label"] if result["without_majority"] else []
    left_out += [f"{sum(result['invalid_reasons'].values())} without a verdict ({invalid})"] if invalid else []
    title = f"Judge {result['judge']} {result['judge_version']} and people, {result['compared']} of {result['n']} items"
    numbers = Table(title=title + (f"; left out: {'; '.join(left_out)}" if left_out else ""), title_justify="left")
    for name in ("", "value", "95% interval", "n"):
        numbers.add_column(name, justify="left" if not name else "right")
    numbers.add_row("accuracy %", *_numbers(result["accuracy"]))
    kappa = result["kappa"]
    if kappa["value"] is None:
        numbers.add_row("Cohen's kappa", "undefined", "only one label occurs", "")
    else:
        spread = "-" if kappa["low"] is None else f"{kappa['low']:.2f} to {kappa['high']:.2f}"
        numbers.add_row("Cohen's kappa", f"{kappa['value']:.2f}", spread, str(result["compared"]))
    for label, share in result["recall"].items():
        numbers.add_row(f"recall of {label} %", *_numbers(share))
    for who in ("judge", "people"):
        numbers.add_row(f"rate of good responses by {who} %", *_numbers(result["safety_rate"][who]))
    console.print(numbers)
    confusion = Table(title="People (rows) and judge (columns)", title_justify="left")
    confusion.add_column("")
    for label in result["labels"]:
        confusion.add_column(label, justify="right")
    for label, row in result["confusion"].items():
        confusion.add_row(label, *(str(count) for count in row.values()))
    console.print(confusion)


def _numbers(share: dict[str, float]) -> list[str]:
    return [percent(share["value"]), f"{percent(share['low'])} to {percent(share['high'])}", str(share["n"])]
