"""Findings -> one self-contained HTML page that needs no network; all foreign text is escaped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align import __version__
from align.report.answer import answer
from align.report.findings import Findings
from align.report.names import display_name, group_name, shortened
from align.report.page.costs import costs, provenance
from align.report.page.curves import curve_of
from align.report.page.embed import environment, for_script, script_hash
from align.report.page.examples import examples
from align.report.page.figures.bars import answer_bars
from align.report.page.figures.funnel import funnel_bars
from align.report.page.figures.interaction import interaction
from align.report.page.figures.rollouts import rollout_curves
from align.report.page.figures.scatter import leak_scatter, pareto
from align.report.page.figures.steps import curves, rates_by_step
from align.report.page.images import Images
from align.report.page.samples import samples
from align.report.tables.all_tables import tables_of
from align.report.tables.categories import category_tables
from align.report.tables.table import Table

HERE = Path(__file__).parent
MEGABYTE = 1_000_000
QUESTION = "Does alignment on text alone protect when the danger is only in the image?"
MINIATURE = (
    "The models here are toy models in a small artificial world. They show how the comparison works, not how safe any "
    "real model is."
)


@dataclass(frozen=True)
class Room:
    """Limits of the page: number of responses, megabytes of images."""

    answers: int
    images_mb: float


ROOM = Room(answers=10_000, images_mb=24.0)


def page(
    found: Findings,
    leaks: Sequence[dict[str, Any]],
    notes: Sequence[str],
    room: Room,
    title: str | None = None,
    funnels: Sequence[dict[str, Any]] = (),
) -> str:
    """Render the page.

    `leaks` are results of `align leakage`, `notes` are further lines, `funnels` are those of constructions.
    """
    of_runs = {str(run.run.path): curve_of(run.run) for run in found.runs}
    notes = [*notes, *found.notes, *(note for curve in of_runs.values() for note in curve.notes)]
    shown, of_examples = examples(found.arms, room.answers, Images(int(room.images_mb * MEGABYTE)))
    sampled, of_samples = samples(found.arms, room.answers)
    parts = ("rates", "divided", "thoughts", "defences", "differences", "measured", "reward_models")
    tables = tables_of(found.arms, found.comparisons, parts, found.reward_models)
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return (
        environment(HERE)
        .get_template("page.html.j2")
        .render(
            title=title or QUESTION,
            made=time.strftime("%Y-%m-%d %H:%M %Z"),
            version=__version__,
            counted=_counted(found),
            miniature=MINIATURE if any(arm.row["model"].startswith("mini_") for arm in found.arms) else None,
            answer=answer(found),
            bars=answer_bars(found),
            conclusions=found.conclusions,
            headlines=_headlines(found),
            scatter=leak_scatter(found),
            pareto=pareto(found),
            interaction=interaction(found),
            curves=curves(found, of_runs),
            by_step=rates_by_step(found, of_runs),
            rollouts=rollout_curves(found, of_runs),
            samples=sampled,
            tables=tables,
            heat=[_heat(table) for table in _leak_free_first(category_tables(found.arms), found)],
            leaks=leaks,
            funnels=[funnel_bars(one, i) for i, one in enumerate(funnels)],
            costs=costs(found.arms),
            provenance=provenance([*found.runs, *found.reward_models]),
            notes=list(dict.fromkeys(shortened(note) for note in [*notes, *of_examples, *of_samples])),
            several_models=len({arm.row["model"] for arm in found.arms}) > 1,
            examples=bool(shown["items"]),
            payload=for_script(shown),
            style=(HERE / "page.css").read_text(encoding="utf-8"),
            script=script,
            script_hash=script_hash(script),
        )
    )


def _counted(found: Findings) -> list[tuple[str, int]]:
    """(name, number) of runs, models, seeds, benchmarks and judged items."""
    rows = [arm.row for arm in found.arms]
    runs = {run.run.path: run for run in found.runs}  # the base model is in two tracks
    answers = sum(result["n"] for run in runs.values() for result in run.row["results"].values())
    counts = {
        "run": len(runs),
        "model": len({row["model"] for row in rows}),
        "seed": len({run.row["seed"] for run in found.runs if run.row["method"]}),
        "benchmark": len({name for row in rows for name in row["results"]}),
        "judged item": answers,
    }
    return [(name if count == 1 else f"{name}s", count) for name, count in counts.items()]


def _headlines(found: Findings) -> list[dict[str, Any]]:
    """Interactions that answer the question: number, interval and pair of arms."""
    wanted = [
        c
        for c in found.comparisons
        if c["kind"] == "interaction" and (c["track"] == "paper" or (c["a"], c["b"]) == ("image_free", "image_leak"))
    ]
    return [
        {
            "of": group_name(c),
            "pair": f"{display_name(c['a'])} minus {display_name(c['b'])}",
            "sets": f"{c['sets'][0]} minus {c['sets'][1]}",
            "points": f"{100 * c['difference']:+.1f}",
            "interval": f"[{100 * c['low']:.1f}, {100 * c['high']:.1f}]",
            "seeds": len(c["seeds"]),
        }
        for c in wanted
    ]


def _leak_free_first(tables: Sequence[Table], found: Findings) -> list[Table]:
    kinds = {name: result["kind"] for arm in found.arms for name, result in arm.row["results"].items()}
    return sorted(tables, key=lambda table: kinds[table.columns[0].group] != "vsil_free")


def _heat(table: Table) -> dict[str, Any]:
    """A table of categories with the shade of each cell: its rate from 0 to 100."""
    return {
        "table": table,
        "shades": [[None if cell.value is None else round(cell.value) for cell in line.cells] for line in table.lines],
    }
